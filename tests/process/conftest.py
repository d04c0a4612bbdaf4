"""A service in this process for the commands that run in their own."""

from __future__ import annotations

from support.command_fixtures import command, serve, service

__all__ = ["command", "serve", "service"]
