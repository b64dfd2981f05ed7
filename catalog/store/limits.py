"""What a run may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Times in seconds, sizes in bytes."""

    max_attempts: int = 3
    lease_seconds: int = 15  # a runner that is silent for so long is taken for dead
    max_timeout_seconds: int = 24 * 3600
    output_limit_bytes: int = 32 * 1024 * 1024
    memory: int = 0  # of one run, as the lab gives it: an agency whose quota is below can run nothing
    cpus: float = 0.0  # likewise, in cores
    sweep_batch: int = 200  # runs of a sweep that one runner carries out
