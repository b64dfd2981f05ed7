"""One module for each part of the site; each has a ``router``."""
