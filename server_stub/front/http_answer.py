"""Plain HTTP requests, whichever version carried them: find the route, run it, answer."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from ..api.call import HttpHandler, HttpRequest, HttpResponse

_log = logging.getLogger(__name__)

_ABSOLUTE_FORM: Final = re.compile("https?://", re.IGNORECASE)
_TEXT: Final = "text/plain; charset=utf-8"
NOT_FOUND: Final = HttpResponse(404, b"404 page not found\n", _TEXT)
BODY_TOO_LARGE: Final = HttpResponse(413, b"http: request body too large\n", _TEXT)


def plain_text(status: int, text: str) -> HttpResponse:
    """A response that says one line."""
    return HttpResponse(status, text.encode() + b"\n", _TEXT)


def origin_form(target: str) -> str:
    """Path and query of an HTTP/1.1 target, be it written for a proxy (RFC 9112, 3.2.2).

    Which host it names is of no matter, as in the Host header. Raises ValueError if it is no URL.
    """
    if _ABSOLUTE_FORM.match(target) is None:
        return target
    url = urlsplit(target, allow_fragments=False)
    return f"{url.path or '/'}?{url.query}"


def path_of(target: str) -> str:
    """The path of a request's target, without its query."""
    return unquote(target.partition("?")[0])


async def answer(
    routes: Mapping[str, HttpHandler], method: str, target: str, body: bytes
) -> HttpResponse:
    """Serve a request; a handler that fails is logged and answered with 500."""
    path = path_of(target)
    handler = routes.get(path)
    if handler is None:
        return NOT_FOUND
    try:
        query = parse_qs(target.partition("?")[2], keep_blank_values=True, max_num_fields=1000)
    except ValueError as error:
        return plain_text(400, f"bad query: {error}")
    try:
        return await handler(HttpRequest(method, path, query, body))
    except Exception:
        _log.exception("%s %s failed", method, path)
        failure = {"error": "internal error; the server's log says more"}
        return HttpResponse(500, json.dumps(failure).encode())
