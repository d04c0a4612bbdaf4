"""The wire: attempts, sessions, retries, downloads, and what can be observed of them."""
