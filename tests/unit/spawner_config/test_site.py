"""How this site's machines reach a package index."""

from __future__ import annotations

from pathlib import Path

import pytest

from spawner_config.images.site import Site, site_of_this_machine


def test_it_is_what_pip_is_set_up_to_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "PIP_TRUSTED_HOST", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    settings = tmp_path / "pip.conf"
    settings.write_text(
        "[global]\nindex-url = https://index.example/simple\ncert = /site/ca.pem\n"
        "extra-index-url =\n    https://other.example/simple\n    file:///srv/wheels\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    monkeypatch.setenv("PIP_TRUSTED_HOST", "index.example")
    site = site_of_this_machine()
    assert site.index_url == "https://index.example/simple"
    assert site.extra_index_url == "https://other.example/simple"  # a build cannot see this machine's folders
    assert site.trusted_host == "index.example"
    assert site.ca_bundle == Path("/site/ca.pem")
    assert site_of_this_machine(ca_bundle=tmp_path / "mine.pem").ca_bundle == tmp_path / "mine.pem"


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"engine\.ca_bundle=.*missing\.pem"):
        Site(ca_bundle=tmp_path / "missing.pem").certificates()
    assert Site().certificates() == b""
