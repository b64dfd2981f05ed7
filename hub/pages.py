"""What the Hub's own pages (``hub/templates``) need: the reader's language, and texts in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from jinja2 import Environment
from jinja2.ext import Extension
from jinja2.runtime import Context
from jinja2.utils import pass_context

from catalog.web.i18n import COOKIE, Translator, choose, translator

# The template variable with the language for whoever has not chosen one.
DEFAULT = "lab_language"


def request_language(request: Any, default: str) -> str:
    """Return ``nb``, ``nn`` or ``en`` for one of tornado's requests; ``default`` if there is none."""
    if request is None:
        return default
    query = {name: values[-1].decode("utf-8", "replace") for name, values in request.query_arguments.items() if values}
    cookies = {COOKIE: request.cookies[COOKIE].value} if COOKIE in request.cookies else {}
    return choose(query, cookies, request.headers.get("Accept-Language"), default)


@pass_context
def language(context: Context) -> str:
    """Return the language of the page being rendered.

    JupyterHub gives its templates no request, but ``static_url`` is a method of the handler that has it.
    """
    handler = getattr(context.resolve_or_missing("static_url"), "__self__", None)
    return request_language(getattr(handler, "request", None), str(context.get(DEFAULT, "nb")))


@pass_context
def _gettext(context: Context, message: str) -> str:
    return translator(language(context))(message)


@pass_context
def _ngettext(context: Context, singular: str, plural: str, number: int) -> str:
    return translator(language(context)).plural(singular, plural, number)


@pass_context
def _translator(context: Context) -> Translator:
    return translator(language(context))


class Pages(Extension):
    """Gives JupyterHub's templates ``_``, ``{% trans %}``, ``language()`` and ``tr()``, which is a Translator."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        cast(Any, environment).install_gettext_callables(_gettext, _ngettext, newstyle=True)
        environment.globals["_"] = environment.globals["gettext"]
        environment.globals["language"] = language
        environment.globals["tr"] = _translator


def environment_options() -> Mapping[str, Any]:
    """Return what JupyterHub is to make its Jinja environments with."""
    return {"extensions": ["jinja2.ext.i18n", "hub.pages.Pages"]}
