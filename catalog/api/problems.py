"""Errors as RFC 9457 problem details: every error of the API has this one form.

``type`` is ``urn:proverom:problem:<word>``; the word is stable, ``title`` and ``detail`` are English for people.
``errors`` lists each thing that is wrong with an input.
"""

from __future__ import annotations

import http
import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import compile_path

from catalog.access import Forbidden, NotFound
from catalog.identity import IdentityUnavailable
from catalog.store import Unavailable
from experiments.queue import LeaseLost, NotYourRun, TokenRefused
from lab_templates.model import InvalidInput, Problem

log = logging.getLogger("proverom.api")

MEDIA_TYPE = "application/problem+json"
_URN = "urn:proverom:problem:"
_LONGEST_VALUE = 200


class ProblemItem(BaseModel):
    code: str = Field(description="A machine word, for example above_maximum", examples=["above_maximum"])
    field: str = Field("", examples=["alpha"])
    value: str = Field("", examples=["9"])
    limit: str = Field("", examples=["0.2"])
    message: str = Field("", description="What, which value, what next", examples=["alpha=9 is above its maximum 0.2."])


class ProblemDetails(BaseModel):
    """RFC 9457."""

    type: str = Field(examples=["urn:proverom:problem:invalid-input"])
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field("", examples=["alpha=9 is above its maximum 0.2. Lower it."])
    errors: list[ProblemItem] = []
    reference: str | None = Field(None, description="Names the entry in the lab's log (status 500 only)")


class Refusal(HTTPException):
    """An error that the API itself decides on. ``word`` names it for machines."""

    def __init__(
        self,
        status: int,
        word: str,
        detail: str,
        *,
        errors: Sequence[Problem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.word = word
        self.errors = tuple(errors)


def problem(
    status: int,
    word: str,
    detail: str,
    *,
    errors: Sequence[Problem] = (),
    headers: Mapping[str, str] | None = None,
    reference: str | None = None,
) -> JSONResponse:
    """Return the response for one error."""
    content: dict[str, Any] = {
        "type": _URN + word,
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "errors": [error.as_dict() for error in errors],
    }
    if reference is not None:
        content["reference"] = reference
    return JSONResponse(content, status, dict(headers or {}), media_type=MEDIA_TYPE)


def invalid(errors: Sequence[Problem]) -> JSONResponse:
    return problem(422, "invalid-input", " ".join(e.message for e in errors[:5]), errors=errors)


def install(app: FastAPI) -> None:
    """Give ``app`` the handlers, so that nothing it answers has another form."""
    app.add_exception_handler(InvalidInput, lambda _, e: invalid(e.problems))
    app.add_exception_handler(Exception, unforeseen)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(StarletteHTTPException, _http)
    app.add_exception_handler(
        NotFound, lambda _, e: problem(404, "not-found", _words(e, "There is no such thing, or none that you may see."))
    )
    app.add_exception_handler(
        Forbidden,
        lambda _, e: problem(403, "forbidden", _words(e, "You may not do this. Ask a coordinator of your agency.")),
    )
    app.add_exception_handler(
        IdentityUnavailable,
        lambda _, e: problem(
            503,
            "hub-unavailable",
            _words(e, "The Hub does not answer. Try again in a moment."),
            headers={"Retry-After": "5"},
        ),
    )
    app.add_exception_handler(
        Unavailable,
        lambda _, __: problem(
            503,
            "database-unavailable",
            "The catalog's database does not answer. Nothing was changed. Try again in a moment.",
            headers={"Retry-After": "5"},
        ),
    )
    app.add_exception_handler(
        TokenRefused,
        lambda _, __: problem(
            401,
            "token-refused",
            "This run token is unknown or used up. The runner ends.",
            headers={"WWW-Authenticate": "Bearer"},
        ),
    )
    app.add_exception_handler(
        NotYourRun,
        lambda _, __: problem(403, "not-your-run", "This run token belongs to another run. The runner ends."),
    )
    app.add_exception_handler(
        LeaseLost, lambda _, __: problem(409, "lease-lost", "This attempt no longer owns the run. The runner ends.")
    )


def unforeseen(request: Request, error: Exception) -> JSONResponse:
    """Return a 500 that shows a reference and nothing of the error; the log has both."""
    reference = uuid.uuid4().hex[:12]
    log.error("%s %s failed, reference %s", request.method, request.url.path, reference, exc_info=error)
    detail = f"Something went wrong in the lab. Try again, or tell the lab's people the reference {reference}."
    return problem(500, "internal-error", detail, reference=reference)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI entries of these error statuses (400, 401, 403, 422, 500, 503 are every operation's)."""
    return {
        status: {"description": http.HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": _SCHEMA}}}
        for status in sorted({400, 401, 403, 422, 500, 503, *statuses})
    }


_SCHEMA = {"$ref": "#/components/schemas/ProblemDetails"}


def _words(error: Exception, otherwise: str) -> str:
    return str(error) or otherwise


async def _http(request: Request, error: Exception) -> Response:
    if isinstance(error, Refusal):
        return problem(error.status_code, error.word, error.detail, errors=error.errors, headers=error.headers)
    if not isinstance(error, StarletteHTTPException):
        raise error
    word = http.HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    detail = (
        error.detail
        if error.detail != http.HTTPStatus(error.status_code).phrase
        else _DETAILS.get(error.status_code, error.detail)
    )
    headers = dict(error.headers or {})
    if error.status_code == 405 and (methods := _methods_of(request)):
        headers["Allow"] = ", ".join(methods)  # the framework names those of one route only
    return problem(error.status_code, word, str(detail), headers=headers)


def _methods_of(request: Request) -> list[str]:
    """Return every method that the address takes, from the API's own description."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    found = (
        operations
        for pattern, operations in request.app.openapi()["paths"].items()
        if compile_path(pattern)[0].match(path)
    )
    return sorted({method.upper() for operations in found for method in operations})


_DETAILS = {
    404: "There is nothing at this address. See /api/v1/openapi.json for what there is.",
    405: "This address does not take this method. See the Allow header for those it takes.",
}

# What pydantic calls a fault, as this project's machine word for it.
_CODES = {
    "missing": "missing_value",
    "extra_forbidden": "unknown_field",
    "string_too_long": "too_long",
    "too_long": "too_long",
    "greater_than_equal": "below_minimum",
    "greater_than": "below_minimum",
    "less_than_equal": "above_maximum",
    "less_than": "above_maximum",
    "literal_error": "not_a_choice",
    "enum": "not_a_choice",
    "finite_number": "not_finite",
    "date_from_datetime_parsing": "not_a_date",
}


async def _validation(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    return invalid([_item(item) for item in error.errors()[:100]])


def _item(item: Mapping[str, Any]) -> Problem:
    where, *path = (str(part) for part in item.get("loc", ()))
    field = ".".join(path) or where
    kind = str(item.get("type", ""))
    context = item.get("ctx") or {}
    limit = next(
        (
            str(context[k])
            for k in ("ge", "gt", "le", "lt", "max_length", "min_length", "expected", "pattern")
            if k in context
        ),
        "",
    )
    if kind == "missing":
        value, message = "", f"{field} is missing. Give it in the {where}."
    elif kind == "extra_forbidden":
        value, message = (
            _shown(item.get("input")),
            f"{field} is not a field here. Leave it out; see the API's description for its fields.",
        )
    else:
        value = _shown(item.get("input"))
        said = str(item.get("msg", "is wrong")).removeprefix("Value error, ").rstrip(".")
        message = f"{field}={value}: {said[:1].lower()}{said[1:]}. Correct it and send it again."
    return Problem(_CODES.get(kind, "wrong_type"), field, value, limit, message)


def _shown(value: object) -> str:
    """Return an input as it may be shown: short, and printable as JSON whatever it was."""
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
