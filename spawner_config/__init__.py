"""The walls: what a sandbox is, for notebooks and runs alike."""
