"""The emulator's control API under `/_emulator/` and its web page."""
