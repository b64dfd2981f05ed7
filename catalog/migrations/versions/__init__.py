"""One module per step, named for its order and what it does."""
