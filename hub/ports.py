"""Where the Hub's parts listen, on each engine."""

from __future__ import annotations

from dataclasses import dataclass

from hub.settings import Settings


@dataclass(frozen=True, slots=True)
class Ports:
    """``bind`` is the address of ``proxy`` and ``hub``; the others are on the Hub's loopback always."""

    bind: str
    proxy: int
    hub: int
    proxy_api: int
    catalog: int


def ports_of(settings: Settings) -> Ports:
    """Return the ports inside the Hub's container, or on this machine's loopback on the ``local`` engine.

    In the container they are fixed, because sandboxes call http://hub:8000 and http://hub:8081; ``hub.port`` is what
    the engine publishes. On the machine they follow ``hub.port``, so that two labs can live beside each other.
    """
    if settings.engine.kind == "docker":
        return Ports("0.0.0.0", 8000, 8081, 8099, 10101)  # noqa: S104  (in its own network namespace)
    port = settings.hub.port
    return Ports("127.0.0.1", port, port + 81, port + 99, port + 2101)
