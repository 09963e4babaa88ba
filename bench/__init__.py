"""`make bench`: this engine and the official SDK's own, side by side in one run. `python -m bench --help`."""
