"""Drills: `make drills`, or `python -m drills --help`. docs/operator.md has the table of the last run."""
