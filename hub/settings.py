"""The lab's settings: ``proverom.toml``, each overridable as ``PROVEROM_<SECTION>__<NAME>``. The only place that reads the environment."""

from __future__ import annotations


def load_settings() -> object:
    raise NotImplementedError
