"""Waiting for swaps: shared polling, when to poll, and what webhooks have reported."""
