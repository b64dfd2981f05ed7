"""The memory: what was tried, what was learned, and who may see it."""
