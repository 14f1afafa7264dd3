"""What one caller of the peer API may use: bytes, time, requests a second, requests at once.

A caller has a certificate of the cluster, and may still be broken or hostile. What it does too much of is answered
with 408, 413 or 429, and takes nothing from anybody else.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

Scope = MutableMapping[str, Any]
ASGIMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[ASGIMessage]]
Send = Callable[[ASGIMessage], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_BYTES = 8 << 20  # podman's descriptions of a container, each at most 1 MiB of text, as JSON
IMAGES_BYTES = 1 << 28  # CRIU's images without memory; a usual container has 0.1 to 1 MB
IMAGES_PATH = "/restore"
BODY_TIME_S = 60.0
AT_ONCE = 16
PER_SECOND, BURST = 100.0, 400.0  # a drain asks five times a second


@dataclass
class Use:
    """What one caller uses now."""

    at_once: int = 0
    left: float = BURST
    seen_at: float = field(default_factory=time.monotonic)

    def take(self, now: float) -> bool:
        """Take one of the requests that are left; say whether there was one."""
        self.left = min(BURST, self.left + (now - self.seen_at) * PER_SECOND)
        self.seen_at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class _RefusedError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Limits:
    """The application behind its limits."""

    def __init__(self, app: Application, *, body_time_s: float = BODY_TIME_S, body_bytes: int = BODY_BYTES) -> None:
        self._app = app
        self._body_time_s = body_time_s
        self._body_bytes = body_bytes
        self._uses: dict[str, Use] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        use = self._uses.setdefault(_caller(scope), Use())  # as many as there are hosts and tokens
        begun = False

        async def watched_send(message: ASGIMessage) -> None:
            nonlocal begun
            begun = True
            await send(message)

        use.at_once += 1
        try:
            if use.at_once > AT_ONCE or not use.take(time.monotonic()):
                raise _RefusedError(429, "too-many-requests", "too many requests, at once or a second")
            await self._app(scope, self._limited(scope, receive), watched_send)
        except _RefusedError as refusal:
            if not begun:
                await _refuse(send, refusal)
        finally:
            use.at_once -= 1

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        limit = IMAGES_BYTES if scope["path"].endswith(IMAGES_PATH) else self._body_bytes
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > limit:
            raise _RefusedError(413, "too-large", f"the request has more than {limit} bytes")
        deadline = time.monotonic() + self._body_time_s
        size, more = 0, True

        async def limited() -> ASGIMessage:
            nonlocal size, more
            if not more:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), deadline - time.monotonic())
            except TimeoutError as error:
                raise _RefusedError(408, "too-slow", "the request did not come to an end in time") from error
            size += len(message.get("body", b""))
            more = bool(message.get("more_body", False))
            if size > limit:
                raise _RefusedError(413, "too-large", f"the request has more than {limit} bytes")
            return message

        return limited


def _caller(scope: Scope) -> str:
    identity = scope.get("identity")
    return str(identity.name) if identity is not None else ""


async def _refuse(send: Send, refusal: _RefusedError) -> None:
    told = {"kind": "execution", "code": refusal.code, "message": refusal.message, "temporary": True}
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})
