"""What the Hub's own pages (``hub/templates``) need: the reader's language, and texts in it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from jinja2 import Environment
from jinja2.ext import Extension
from jinja2.runtime import Context
from jinja2.utils import pass_context

from catalog.i18n import N_, Translator, translator
from catalog.web.i18n import COOKIE, choose

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


# How long an access token can be made to last, in seconds.
_LIFETIMES = (3600, 86_400, 7 * 86_400, 30 * 86_400, 90 * 86_400, 365 * 86_400)


@pass_context
def _moment(context: Context, value: datetime) -> str:
    """Return one of JupyterHub's times, which are UTC and do not say so, as the lab's pages write them."""
    return translator(language(context)).moment(value if value.tzinfo else value.replace(tzinfo=UTC))


@pass_context
def _lifetimes(context: Context, most: int | None) -> list[tuple[int | str, str]]:
    """Return the choices for a token's life, shortest first: what the form sends, and words. ``most`` is in seconds,
    None for no limit; "" stands for as long as is allowed.
    """
    t = translator(language(context))
    choices: list[tuple[int | str, str]] = [(s, _lasting(t, s)) for s in _LIFETIMES if not most or s < most]
    return [*choices, ("", _lasting(t, most) if most else t("Never ends"))]


def _lasting(t: Translator, seconds: int) -> str:
    """Return a length of time in the unit that people count it in."""
    hours, days = seconds // 3600, seconds // 86_400
    if seconds < 86_400:
        return t.plural("%(count)s hour", "%(count)s hours", hours)
    return t(N_("1 year")) if days == 365 else t.plural("%(count)s day", "%(count)s days", days)


@pass_context
def _place(context: Context, description: str) -> str:
    """Return what JupyterHub calls a place where somebody is logged in, in words."""
    t = translator(language(context))
    if description == "JupyterHub service catalog":
        return t(N_("The lab's pages"))
    server = description.removeprefix("Server at ")
    return description if server == description else t(N_("The desk %(place)s"), place=server)


class Pages(Extension):
    """Gives JupyterHub's templates ``_``, ``{% trans %}``, ``language()``, ``tr()``, which is a Translator, and what
    its page of tokens says: ``moment(time)``, ``lifetimes(most)`` and ``place(description)``.
    """

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        cast(Any, environment).install_gettext_callables(_gettext, _ngettext, newstyle=True)
        environment.globals["_"] = environment.globals["gettext"]
        environment.globals["language"] = language
        environment.globals["tr"] = _translator
        environment.globals.update(moment=_moment, lifetimes=_lifetimes, place=_place)


def environment_options() -> Mapping[str, Any]:
    """Return what JupyterHub is to make its Jinja environments with."""
    return {"extensions": ["jinja2.ext.i18n", "hub.pages.Pages"]}
