"""Frames on a stream socket between the runner and the processes it forks: one byte of kind, four of length, bytes."""

from __future__ import annotations

import socket
import struct

_HEADER = struct.Struct("!cI")

ORDER, PROGRESS, REPORT, BODY, STOP, READY = b"o", b"p", b"r", b"b", b"s", b"k"

# A result's body holds a notebook whose outputs are capped far below this.
LARGEST = 512 * 1024 * 1024


class BadFrame(Exception):
    """What came is no frame. The other side may be in a kernel's hands: nothing more is read from it."""


def packed(kind: bytes, payload: bytes = b"") -> bytes:
    """Return one frame as bytes."""
    return _HEADER.pack(kind, len(payload)) + payload


def send(stream: socket.socket, kind: bytes, payload: bytes = b"") -> None:
    """Send one frame; raise OSError if the other side is gone."""
    stream.sendall(_HEADER.pack(kind, len(payload)))
    if payload:
        stream.sendall(payload)


def receive(stream: socket.socket) -> tuple[bytes, bytes] | None:
    """Return the next frame, None at the stream's end (also in the middle of a frame). Raise BadFrame, OSError."""
    header = _exactly(stream, _HEADER.size)
    if header is None:
        return None
    kind, size = _HEADER.unpack(header)
    if size > LARGEST:
        raise BadFrame(f"A frame of {size} bytes is larger than any that is sent.")
    payload = _exactly(stream, size)
    return None if payload is None else (kind, bytes(payload))


def _exactly(stream: socket.socket, size: int) -> bytearray | None:
    data = bytearray(size)
    view = memoryview(data)
    got = 0
    while got < size:
        count = stream.recv_into(view[got:])
        if count == 0:
            return None
        got += count
    return data
