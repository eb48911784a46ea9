"""The benchmark: `make bench`, or `python -m bench --help`. What it measures, how to read it: docs/performance.md."""
