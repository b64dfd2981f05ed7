"""Content-addressed files: executed notebooks, figures, and rendered reports, in a folder or an S3 bucket.

A file is named by the SHA-256 of its content, so writing it twice is writing it once, and what is read can be checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from catalog.access import NotFound

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class BlobMissing(NotFound):
    """No file of this digest is kept."""


class BlobDamaged(Exception):
    """The file kept under this digest has another content. Restore it from a backup."""


class Blobs:
    """``url`` is a folder (a path or ``file://``), or ``s3://bucket/prefix`` with s3fs's options as its query."""

    def __init__(self, url: str) -> None:
        """Open the place; nothing is written yet. Raise ValueError for an address that is neither."""
        scheme = urlsplit(url).scheme
        if scheme not in ("", "file", "s3"):
            raise ValueError(f"blob_url is for {scheme!r}. Use a folder or s3://<bucket>/<prefix>.")
        address, _, query = url.partition("?") if scheme == "s3" else (url, "", "")
        self._fs: Any
        try:
            self._fs, root = fsspec.url_to_fs(address, **_options(query))
        except ImportError as error:
            raise ValueError(
                "blob_url is a bucket, which takes s3fs. Install it: pip install 'proverom[s3]'."
            ) from error
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)

    def put(self, data: bytes) -> str:
        """Keep ``data`` and return its SHA-256 in hex. When this returns, it is on the disk (or in the bucket)."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self._path(sha256)
        if self._size(path) != len(data):
            self._write(path, data)
        return sha256

    def get(self, sha256: str) -> bytes:
        """Return the content. Raise BlobMissing or BlobDamaged."""
        data = self._read(self._path(sha256))
        if data is None:
            raise BlobMissing(f"The file {sha256} is missing from the object store.")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise BlobDamaged(f"The file {sha256} has another content than when it was kept. Restore it from a backup.")
        return data

    def has(self, sha256: str) -> bool:
        """Say whether a file of this digest is kept."""
        return self._size(self._path(sha256)) is not None

    def cache(self, key: str, data: bytes) -> None:
        """Keep something that can be made again, under a key of the caller's; an earlier one is replaced."""
        self._write(self._cache_path(key), hashlib.sha256(data).digest() + data)

    def cached(self, key: str) -> bytes | None:
        """Return what was cached under ``key``; None if there is nothing, or it is damaged."""
        kept = self._read(self._cache_path(key))
        if kept is None or hashlib.sha256(kept[32:]).digest() != kept[:32]:
            return None
        return kept[32:]

    def _path(self, sha256: str) -> str:
        if not _SHA256.match(sha256):
            raise BlobMissing("That is no SHA-256 of a file.")
        return f"{self._root}/{sha256[:2]}/{sha256}"

    def _cache_path(self, key: str) -> str:
        name = hashlib.sha256(key.encode()).hexdigest()
        return f"{self._root}/cache/{name[:2]}/{name}"

    def _size(self, path: str) -> int | None:
        try:
            return int(self._fs.size(path))
        except FileNotFoundError:
            return None

    def _read(self, path: str) -> bytes | None:
        try:
            return bytes(self._fs.cat_file(path))
        except FileNotFoundError:
            return None

    def _write(self, path: str, data: bytes) -> None:
        if self._local:
            _write_durably(Path(path), data)
        else:
            self._fs.pipe_file(path, data)  # an object appears whole or not at all


def _options(query: str) -> dict[str, Any]:
    """Return s3fs's options; no listing is cached, for another process may have written since."""
    if not query:
        return {}
    options: dict[str, Any] = dict(parse_qsl(query, strict_parsing=True))
    return {**options, "use_listings_cache": False}


def _write_durably(path: Path, data: bytes) -> None:
    """Write a file so that it is whole or absent, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    for folder in (path.parent, path.parent.parent):  # the new name, and a new folder's own name
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
