"""Async-first SDK for the AI Face Swap API."""
