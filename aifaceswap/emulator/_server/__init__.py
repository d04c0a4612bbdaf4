"""The sockets of the emulator: its HTTP server and its webhook deliveries."""
