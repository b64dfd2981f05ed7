"""Files on their way out: names that are safe in a header, and content that can do nothing in a browser."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote

from starlette.responses import Response

# Whatever the bytes are: no script, no form, no connection, an origin of its own.
INERT = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"

_ODD = re.compile(r"[^A-Za-z0-9._-]+")


def disposition(filename: str, *, attachment: bool = True) -> str:
    """Return a Content-Disposition value: an ASCII name for old readers, the whole name (RFC 8187) for the others.

    Control characters, slashes and the marks that turn writing around are taken out; whatever is left is quoted.
    """
    kept = "".join(" " if unicodedata.category(c).startswith(("C", "Z")) or c in "/\\" else c for c in filename)
    kept = " ".join(kept.split()).strip(". ")[:150] or "file"
    plain = _ODD.sub("-", unicodedata.normalize("NFKD", kept).encode("ascii", "ignore").decode()).strip("-.") or "file"
    kind = "attachment" if attachment else "inline"
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(kept, safe='')}"


def file_response(
    data: bytes,
    *,
    media_type: str,
    filename: str,
    attachment: bool = True,
    policy: str = INERT,
    etag: str | None = None,
) -> Response:
    headers = {
        "Content-Disposition": disposition(filename, attachment=attachment),
        "Content-Security-Policy": policy,
        "Cache-Control": "private, no-cache",
    }
    if etag is not None:
        headers["ETag"] = f'"{etag}"'
    return Response(data, media_type=media_type, headers=headers)
