"""The subcommands of `es-rl`."""
