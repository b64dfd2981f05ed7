"""The engines that make sandboxes. ``base`` is the Protocol; ``choose`` picks one. Importing this imports no engine's
library.
"""
