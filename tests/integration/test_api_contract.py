"""The API keeps to its own description, whatever it is sent: schemathesis makes the requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.unit.catalog.api_lab import BASE, ApiLab, api_lab

pytestmark = pytest.mark.filterwarnings("default")  # schemathesis and its generators warn of their own matters


@pytest.fixture(scope="module")
def lab(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiLab]:
    with api_lab(migrated_sqlite, tmp_path_factory.mktemp("contract")) as built:
        run = built.world.submit()
        built.world.finished(run)
        yield built


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def test_the_api_keeps_to_its_description(lab: ApiLab) -> None:
    schema = schemathesis.openapi.from_asgi(f"{BASE}/api/v1/openapi.json", lab.app)
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path == "/runs/{id}/events":
            continue  # a stream: test_api_runs reads it

        @settings(
            max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(case=operation.as_strategy())
        def keeps(case: schemathesis.Case) -> None:
            case.call_and_validate(headers={"Authorization": "Bearer token-root"}, checks=CHECKS)

        keeps()
        tried += 1
    assert tried > 20


def test_the_description_is_complete(lab: ApiLab) -> None:
    description = lab.http.get(f"{BASE}/api/v1/openapi.json").json()
    assert description["servers"] == [{"url": f"{BASE}/api/v1"}]
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["tags"], where
            assert operation["summary"], where
            assert operation["security"], where
            for status in ("401", "403", "422", "500", "503"):
                assert "application/problem+json" in operation["responses"][status]["content"], f"{where} {status}"
    assert "HTTPValidationError" not in description["components"]["schemas"]
    assert description["components"]["schemas"]["ProblemDetails"]["properties"]["errors"]
