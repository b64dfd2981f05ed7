"""Hostile text and markup in, inert markup out.

Nothing that comes out of a notebook keeps a script, a style, a link, a form, or an image from anywhere but the page
itself.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Mapping
from functools import cache
from io import BytesIO

import nh3
from markupsafe import Markup
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

MAX_MARKUP = 300_000  # characters of HTML in one piece; a leader reads none longer
# Characters of Markdown in one piece. Its parser takes time by the square of some texts: 0.3 s for the worst of 20 000.
MAX_MARKDOWN = 20_000
MAX_PIXELS = 40_000_000

_TAGS = {
    *(
        "p",
        "br",
        "hr",
        "em",
        "strong",
        "b",
        "i",
        "u",
        "s",
        "del",
        "sub",
        "sup",
        "small",
        "span",
        "div",
        "blockquote",
        "pre",
        "code",
    ),
    *("ul", "ol", "li", "dl", "dt", "dd", "h3", "h4", "h5", "h6", "img"),
    *("table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td"),
}
_ATTRIBUTES = {
    "th": {"colspan", "rowspan", "scope"},
    "td": {"colspan", "rowspan"},
    "ol": {"start"},
    "img": {"src", "alt"},
}
_DATA_IMAGE = re.compile(r"data:(image/(?:png|jpeg|gif|svg\+xml));base64,([A-Za-z0-9+/=\s]+)\Z")
_SPAN = re.compile(r"[0-9]{1,3}\Z")
_WEB = re.compile(r"https?://", re.IGNORECASE)


def image(mime: str, data: bytes) -> Markup | None:
    """Return a ``data:`` address for an image, None if it is none that a browser should be given.

    A raster image must be what it says and hold at most ``MAX_PIXELS``. An SVG goes into an ``<img>``, where it can
    neither run a script nor load anything.
    """
    if mime == "image/svg+xml":
        if b"<svg" not in data[:4096].lower():
            return None
    elif mime not in ("image/png", "image/jpeg", "image/gif") or not _is_image(mime, data):
        return None
    return Markup(f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}")  # noqa: S704 (both parts are checked)


def _is_image(mime: str, data: bytes) -> bool:
    from PIL import Image

    try:
        with Image.open(BytesIO(data), formats=(mime.removeprefix("image/").upper(),)) as picture:
            width, height = picture.size
    except Exception:
        # Pillow's readers raise whatever a broken file makes them trip over; all of it means "not such an image".
        return False
    return 0 < width * height <= MAX_PIXELS


def _checked_image(address: str) -> str | None:
    match = _DATA_IMAGE.match(address)
    if match is None:
        return None
    try:
        return image(match[1], base64.b64decode(match[2]))
    except (binascii.Error, ValueError):
        return None


def _attribute(tag: str, name: str, value: str) -> str | None:
    if tag == "img" and name == "src":
        return _checked_image(value)
    if name in ("colspan", "rowspan", "start"):
        return value if _SPAN.match(value) else None
    return value


@cache
def _cleaner() -> nh3.Cleaner:
    return nh3.Cleaner(
        tags=_TAGS,
        clean_content_tags={
            "script",
            "style",
            "iframe",
            "object",
            "noscript",
            "template",
            "svg",
            "math",
            "title",
            "textarea",
            "select",
        },
        attributes=_ATTRIBUTES,
        attribute_filter=_attribute,
        url_schemes={"data"},
        url_relative="deny",
        link_rel=None,
    )


def clean_html(markup: str) -> Markup:
    """Return what may stay of a piece of HTML; "" where it is longer than ``MAX_MARKUP``."""
    return _cleaned(markup) if len(markup) <= MAX_MARKUP else Markup("")


def _cleaned(markup: str) -> Markup:
    return Markup(_cleaner().clean(markup))  # noqa: S704 (that is what cleaning is for)


class _Renderer(IPythonRenderer):
    """Markdown under a page that has its own h1 and h2; addresses are written out, because nothing in a report is a
    link.
    """

    def heading(self, text: str, level: int, **_attrs: object) -> str:
        level = min(6, level + 2)
        return f"<h{level}>{text}</h{level}>\n"

    def block_code(self, code: str, info: str | None = None) -> str:  # noqa: ARG002
        return f"<pre><code>{html.escape(code)}</code></pre>\n"

    def link(self, text: str, url: str, title: str | None = None) -> str:  # noqa: ARG002
        shown = html.escape(url)
        return text if not _WEB.match(url) or text == shown else f"{text} ({shown})"

    def image(self, text: str, url: str, title: str | None = None) -> str:  # noqa: ARG002
        source = _checked_image(
            self._attachment(url.removeprefix("attachment:")) if url.startswith("attachment:") else url
        )
        return f'<img src="{source}" alt="{html.escape(text)}">' if source else f"<em>{html.escape(text)}</em>"

    def _attachment(self, name: str) -> str:
        for mime, data in self.attachments.get(name, {}).items():
            if (address := _checked_image(f"data:{mime};base64,{data}")) is not None:
                return address
        return ""


def clean_markdown(source: str, attachments: Mapping[str, Mapping[str, str]] | None = None) -> Markup:
    """Return Markdown as inert HTML, its headings two levels down; as plain paragraphs beyond ``MAX_MARKDOWN``."""
    if len(source) > MAX_MARKDOWN:
        return Markup("").join(Markup("<p>{}</p>\n").format(piece) for piece in source.split("\n\n"))
    renderer = _Renderer(
        escape=False,
        exclude_anchor_links=True,
        embed_images=False,
        attachments={name: dict(bundle) for name, bundle in (attachments or {}).items()},
    )
    return _cleaned(MarkdownWithMath(renderer=renderer).render(source))
