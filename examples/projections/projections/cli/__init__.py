"""The programs of the steps, one a file: `python -m projections.cli.NAME --help`."""
