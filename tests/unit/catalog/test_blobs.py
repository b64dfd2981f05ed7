"""Content-addressed files in a folder."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.access import NotFound
from catalog.blobs import BlobDamaged, BlobMissing, Blobs


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(str(tmp_path / "blobs"))


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_folder_by_path_or_address(tmp_path: Path, prefix: str) -> None:
    blobs = Blobs(f"{prefix}{tmp_path}/with space")
    sha = blobs.put(b"data")
    assert blobs.get(sha) == b"data"
    assert (tmp_path / "with space" / sha[:2] / sha).read_bytes() == b"data"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=2000))
def test_what_is_put_is_got_back(blobs: Blobs, data: bytes) -> None:
    sha = blobs.put(data)
    assert sha == hashlib.sha256(data).hexdigest()
    assert blobs.has(sha)
    assert blobs.get(sha) == data
    assert blobs.put(data) == sha


def test_opening_writes_nothing(tmp_path: Path) -> None:
    Blobs(str(tmp_path / "blobs"))
    assert not (tmp_path / "blobs").exists()


@pytest.mark.parametrize("sha", ["0" * 64, "", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_what_is_not_there_is_missing(blobs: Blobs, sha: str) -> None:
    with pytest.raises(BlobMissing):
        blobs.get(sha)
    assert issubclass(BlobMissing, NotFound)


def test_a_changed_file_is_noticed_and_healed_by_the_next_put(blobs: Blobs, tmp_path: Path) -> None:
    sha = blobs.put(b"right")
    path = tmp_path / "blobs" / sha[:2] / sha
    path.write_bytes(b"wrong")
    with pytest.raises(BlobDamaged):
        blobs.get(sha)
    path.write_bytes(b"rig")  # cut off, as by a full disk
    assert blobs.put(b"right") == sha
    assert blobs.get(sha) == b"right"


def test_a_failed_write_leaves_nothing(blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        blobs.put(b"data")
    monkeypatch.undo()
    assert not blobs.has(hashlib.sha256(b"data").hexdigest())
    assert [p for p in (tmp_path / "blobs").rglob("*") if p.is_file()] == []


def test_many_writers_of_one_file(blobs: Blobs) -> None:
    with ThreadPoolExecutor(16) as pool:
        shas = set(pool.map(lambda _: blobs.put(b"x" * 100_000), range(64)))
    assert len(shas) == 1
    assert blobs.get(shas.pop()) == b"x" * 100_000


def test_the_cache_replaces_and_distrusts(blobs: Blobs, tmp_path: Path) -> None:
    assert blobs.cached("report/1") is None
    blobs.cache("report/1", b"old")
    blobs.cache("report/1", b"new")
    assert blobs.cached("report/1") == b"new"
    assert blobs.cached("report/2") is None
    (kept,) = [p for p in (tmp_path / "blobs" / "cache").rglob("*") if p.is_file()]
    kept.write_bytes(kept.read_bytes()[:-1])
    assert blobs.cached("report/1") is None
    kept.write_bytes(b"")
    assert blobs.cached("report/1") is None


@pytest.mark.parametrize("url", ["https://example.no/x", "memory://x", "github://a:b@/"])
def test_other_places_are_refused_by_name(url: str) -> None:
    with pytest.raises(ValueError, match="blob_url"):
        Blobs(url)
