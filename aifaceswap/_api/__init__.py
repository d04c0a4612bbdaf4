"""The API contract without I/O: JSON and values, requests and responses."""
