"""The command `bulk` and its subcommands."""
