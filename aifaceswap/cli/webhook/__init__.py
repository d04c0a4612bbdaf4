"""The command `webhook` and its subcommands."""
