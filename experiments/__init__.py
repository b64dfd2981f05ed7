"""The work: a run from request to result.

Importing this package does nothing: it also lives in the sandbox image, where only ``record`` and ``runner`` are used.
"""
