"""The tests. This file makes them a package, as Pgx installs another package named `tests`."""
