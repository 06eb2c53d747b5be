"""How every route answers: refusals as JSON with a sentence, strangers kept out, bodies of a bounded size."""

import functools
import json
import urllib.parse
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from ....trainer_core.errors import ScionError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
JSON_MOST = 256 * 1024
"""Bytes of a request in JSON; a caption of 20,000 letters has at most 120,000, escaped."""
DEFAULT_PORTS = {"http": 80, "https": 443}


class Refused(Exception):
    """
    Args:
        status: 400 for what cannot be meant, 403 for strangers, 404 for what is not there, 409 for what cannot be done
            now, 413 for what is too large.
        why: a sentence.
    """

    def __init__(self, status: int, why: str):
        super().__init__(why)
        self.status = status


def answering(handler: Handler) -> Handler:
    """A route that only looks."""

    @functools.wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refused as refused:
            return web.json_response({"error": str(refused)}, status=refused.status)
        except ScionError as error:
            return web.json_response({"error": str(error)}, status=409)

    return answer


def changing(handler: Handler) -> Handler:
    """A route that changes something: other sites' pages, which a browser lets send here, too, are refused."""

    @functools.wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        if is_foreign(request.headers):
            raise Refused(403, "this was sent by a page of another site, so nothing was done")
        return await handler(request)

    return answering(answer)


def is_foreign(headers) -> bool:
    """Whether a browser says that the page which sent a request is another site's. Programs say nothing of the kind.

    As the host's own middleware does it, which is absent where the host allows other sites to read its answers, and
    looks at the origin only where the host is called localhost.
    """
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    if site is not None and site in ("same-origin", "none"):
        return False
    if site == "cross-site":
        return True
    return origin is not None and _place(origin) != _place(f"//{headers.get('Host', '')}", origin)


def _place(url: str, like: str = "") -> tuple[str | None, int | None]:
    """Host and port of an origin; the port of the protocol where none is said."""
    try:
        parts = urllib.parse.urlsplit(url)
        scheme = parts.scheme or urllib.parse.urlsplit(like).scheme
        return parts.hostname, parts.port or DEFAULT_PORTS.get(scheme)
    except ValueError:
        return None, -1


async def said_in(request: web.Request) -> dict[str, Any]:
    """The JSON object that a request brings.

    Raises:
        Refused: it is none, or too large.
    """
    data = bytearray()
    async for chunk in request.content.iter_chunked(65536):
        data += chunk
        if len(data) > JSON_MOST:
            raise Refused(413, f"this is more than {JSON_MOST:,} bytes, which is too much here")
    try:
        value = json.loads(bytes(data) or b"{}")
    except (ValueError, RecursionError):
        raise Refused(400, "this is no JSON") from None
    if not isinstance(value, dict):
        raise Refused(400, "this is no JSON object")
    return value


def whole_number(request: web.Request, name: str, default: int, low: int, high: int) -> int:
    """A number that the address gives.

    Raises:
        Refused: it is none, or out of range.
    """
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and low <= int(text) <= high):
        raise Refused(400, f"{name}: {text!r:.80} is no whole number from {low:,} to {high:,}")
    return int(text)


def one_of(request: web.Request, name: str, choices: Sequence[str]) -> str:
    """A word that the address gives; the first of the choices where it gives none.

    Raises:
        Refused: it is another.
    """
    text = request.query.get(name, choices[0])
    if text not in choices:
        raise Refused(400, f"{name}: {text!r:.80} is none of {', '.join(map(repr, choices))}")
    return text
