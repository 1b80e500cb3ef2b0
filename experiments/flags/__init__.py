"""The flags of the commands: how they are parsed, and what several commands have in common."""
