"""Secrets are made once, and nobody else can read them."""

import json
import stat
from pathlib import Path

import pytest

from hub.keys import KeysDamaged, load_keys, write_private


def test_they_are_made_once_and_kept(tmp_path: Path) -> None:
    first = load_keys(tmp_path)
    assert load_keys(tmp_path) == first
    assert len(bytes.fromhex(first.cookie_secret)) == 32
    assert len({first.cookie_secret, first.proxy_password, first.catalog_token, first.culler_token}) == 4
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


def test_one_that_is_missing_is_added_and_the_others_stay(tmp_path: Path) -> None:
    first = load_keys(tmp_path)
    kept = json.loads((tmp_path / "secrets.json").read_text())
    del kept["catalog_secret"]
    write_private(tmp_path / "secrets.json", kept)
    again = load_keys(tmp_path)
    assert again.cookie_secret == first.cookie_secret
    assert again.catalog_secret != first.catalog_secret


@pytest.mark.parametrize("text", ["{", "[]", '{"cookie_secret": 1}'])
def test_a_damaged_file_is_not_replaced_in_silence(tmp_path: Path, text: str) -> None:
    (tmp_path / "secrets.json").write_text(text)
    with pytest.raises(KeysDamaged, match=r"secrets\.json"):
        load_keys(tmp_path)
    assert (tmp_path / "secrets.json").read_text() == text


def test_a_private_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    write_private(path, {"a": 1})
    write_private(path, "text")
    assert path.read_text() == "text"
    assert list(path.parent.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
