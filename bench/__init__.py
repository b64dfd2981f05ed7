"""What the lab costs in time, against the plain tool beside it on the same machine. ``python -m bench``."""
