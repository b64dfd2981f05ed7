"""The recipes: what can be run, and with which parameters."""
