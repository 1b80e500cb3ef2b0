"""The programs that a person runs: the `es-rl` command and the code of its subcommands."""
