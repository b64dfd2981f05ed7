"""Reading JSON from strangers: nothing but plain, finite, printable values comes through.

Python's own reader takes NaN, 1e400, lone surrogates and NUL; the database and other readers do not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from catalog.api.problems import Refusal
from lab_templates.model import Problem

MAX_DEPTH = 32
_JSON_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def read_json(data: bytes, *, mend_text: bool = False) -> Any:
    """Return the JSON value in ``data`` (UTF-8).

    Raise Refusal (400 ``bad-json``) if it is no JSON, (422) if it holds NaN, an infinity, a number that is none in 64
    bits, NUL or half a character, or is nested deeper than MAX_DEPTH. With ``mend_text`` broken characters become
    U+FFFD instead: a runner's report is not lost for the output of a program.
    """
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_constant, parse_float=_float)
    except Refusal:
        raise
    except RecursionError:
        raise _refuse("too_deep", f"The JSON is nested deeper than {MAX_DEPTH} levels. Flatten it.") from None
    except (ValueError, UnicodeDecodeError) as error:
        at = (
            f"line {error.lineno}, column {error.colno}"
            if isinstance(error, json.JSONDecodeError)
            else str(error)[:100]
        )
        raise Refusal(400, "bad-json", f"The body is not JSON ({at}). Send JSON in UTF-8.") from None
    return _checked(value, mend_text)


def _constant(word: str) -> float:
    raise _refuse("not_finite", f"{word} is not a finite number. Give an ordinary number.", word)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _constant_error(text)
    return value


def _constant_error(text: str) -> Refusal:
    shown = text[:40]
    return _refuse("not_finite", f"{shown} is not a finite number. Give an ordinary number.", shown)


def _checked(value: Any, mend: bool) -> Any:
    """Return ``value`` after a walk over all of it, without recursion: it may be deeper than Python's stack."""
    holder = [value]
    waiting: list[tuple[Any, int]] = [(holder, 0)]
    while waiting:
        node, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise _refuse("too_deep", f"The JSON is nested deeper than {MAX_DEPTH} levels. Flatten it.")
        items = list(node.items()) if isinstance(node, dict) else list(enumerate(node))
        for key, item in items:
            if isinstance(key, str):
                _text(key, mend=False)
            if isinstance(item, str):
                node[key] = _text(item, mend)
            elif isinstance(item, dict | list):
                waiting.append((item, depth + 1))
    return holder[0]


def _text(text: str, mend: bool) -> str:
    if text.isascii() and "\x00" not in text:
        return text
    try:
        text.encode("utf-8")
        whole = "\x00" not in text
    except UnicodeEncodeError:
        whole = False
    if whole:
        return text
    if mend:
        return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\ufffd")
    shown = text[:40].encode("unicode_escape").decode("ascii")
    raise _refuse("bad_text", f"The text {shown} holds NUL or half a character. Type it anew without it.", shown)


def _refuse(code: str, message: str, value: str = "") -> Refusal:
    return Refusal(422, "invalid-input", message, errors=[Problem(code, "body", value, message=message)])


class StrictRequest(Request):
    async def json(self) -> Any:
        return read_json(await self.body())


class StrictRoute(APIRoute):
    """A route whose JSON is read by ``read_json``, and that answers 415 to a body of another type than its own."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        wanted: str | None = None
        if self.body_field is not None:
            wanted = (
                "multipart/form-data"
                if type(self.body_field.field_info).__name__ in ("Form", "File")
                else "application/json"
            )

        async def strict(request: Request) -> Response:
            if wanted is not None and request.method in _JSON_METHODS:
                got = request.headers.get("content-type", "").partition(";")[0].strip().lower()
                if got != wanted:
                    what = f"The body's type is {got[:60] or 'not given'}. Send it as {wanted}."
                    raise Refusal(415, "unsupported-media-type", what, headers={"Accept": wanted})
            return await handle(StrictRequest(request.scope, request.receive))

        return strict
