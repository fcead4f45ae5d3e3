"""HTTP/1.1 protocol with bounds on headers, waiting and early answers, and the client certificate, for uvicorn.

uvicorn bounds neither the size of headers nor the time that they take. Here

    64 KiB     that are not body, in a row: request line, headers, chunk extensions, trailers; more ends with 431
    10 s       from the first byte that is waited for to the end of the headers, however slowly bytes drip in
    60 s       in which a caller that does not read its answer takes nothing of it
    1 s        after an answer that was given before the whole body came: it says `Connection: close` (RFC 9112, 9.6),
               the rest is thrown away, and the connection is closed when the rest has come, or this time is over; no
               more than 8 MiB of it are read, of all connections of a process 32 MiB a second, since reading them
               keeps the event loop busy

A body is bounded where it is read (`exchange.api.admission.http_requests`); until it is read, uvicorn keeps 64 KiB of
it and stops reading from the connection.

uvicorn gives an application no client certificate. So the connection puts the certificate, as TLS has checked it, into
the state that each request gets a copy of; nothing that a caller sends can get there.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from exchange import metrics
from exchange.api.admission.concurrency import Place

__all__ = ["HEADERS_SECONDS", "MAX_HEADERS", "BoundedProtocol", "client_certificate"]

MAX_HEADERS: Final = 64 * 1024
HEADERS_SECONDS: Final = 10.0
_CERTIFICATE = "client_certificate"
_STALLED_SECONDS = 60.0
_LINGER_SECONDS = 1.0
_MAX_DISCARDED = 8 * 1024 * 1024
_DISCARDED_PER_SECOND = 32 * 1024 * 1024  # of all connections
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 27\r\nconnection: close\r\n\r\n"
    b"got headers beyond 64 KiB.\n"
)


Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _HeadersTooLargeError(Exception):
    """Stops the parser."""


class _Discarded:
    """Bytes that all connections of a process threw away within a second."""

    def __init__(self) -> None:
        self._since = 0.0
        self._bytes = 0

    def add(self, size: int, now: float) -> bool:
        """Add to them; return whether they are still within the bound."""
        if now - self._since >= 1.0:
            self._since, self._bytes = now, 0
        self._bytes += size
        return self._bytes <= _DISCARDED_PER_SECOND


_ALL_DISCARDED = _Discarded()


class BoundedProtocol(HttpToolsProtocol):
    """One connection. `place` and `listener` are set by what accepted it."""

    place: Place | None = None
    listener = ""
    cycle: Any  # the newest request, and its answer; None before the first
    transport: Any
    app_state: dict[str, Any]

    _awaits_headers = True
    _no_body = 0  # bytes since the last part of a body, or the end of the headers; up to one read more
    _ends = False  # nothing is parsed any more
    _early = False  # the answer began before the whole body came
    _discarded = 0
    _linger_timer: asyncio.TimerHandle | None = None  # set while the rest of a body is thrown away
    _headers_timer: asyncio.TimerHandle | None = None
    _stalled_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        certificate = None if tls is None else tls.getpeercert(binary_form=True)
        self.app_state = {**self.app_state, _CERTIFICATE: certificate}
        self._headers_timer = self.loop.call_later(HEADERS_SECONDS, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the connection's place back."""
        self._cancel_timers()
        if self.place is not None:
            self.place.release()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, within the bounds."""
        if self._linger_timer is not None:
            self._discarded += len(data)
            if self._discarded > _MAX_DISCARDED or not _ALL_DISCARDED.add(len(data), self.loop.time()):
                self._ends = True
                self.flow.pause_reading()
        if self._ends:
            return
        self._no_body += len(data)
        super().data_received(data)
        if self._no_body > MAX_HEADERS:
            self._refuse_headers()
        elif self._headers_timer is None and (
            self._awaits_headers or self.cycle is None or self.cycle.response_complete
        ):
            self._headers_timer = self.loop.call_later(HEADERS_SECONDS, self._too_slow)

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._awaits_headers = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """End the wait for the headers."""
        if self._no_body > MAX_HEADERS:  # of which some may be body
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > MAX_HEADERS:
                raise _HeadersTooLargeError
        self._awaits_headers = False
        self._no_body = 0
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None
        super().on_headers_complete()
        # The task that answers has been made and has not begun: it takes this when it does.
        self.cycle.send = self._closing_early(self.cycle, self.cycle.send)

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._no_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._no_body = 0
        super().on_message_complete()
        if self._linger_timer is not None and not self._ends:  # the rest of the body has come
            self._cancel_timers()
            self._ends = True
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed."""
        if self._early:  # one answer was given, and said that it is the last
            self._ends = True
        elif self._no_body > MAX_HEADERS:
            self._refuse_headers()
        elif not self.transport.is_closing():
            super().send_400_response(msg)

    def on_response_complete(self) -> None:
        """Go on with the next request; close the connection where the answer came before the whole body did."""
        super().on_response_complete()
        if self._early and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            if self.cycle.more_body:
                # A close with unread bytes would be a reset, and the caller might lose the answer.
                self._discarded = 0
                self._linger()
            else:
                self._ends = True
                self.transport.close()

    def pause_writing(self) -> None:
        """Begin to watch whether the caller reads its answer."""
        super().pause_writing()
        if self._stalled_timer is None:
            size = self.transport.get_write_buffer_size()
            self._stalled_timer = self.loop.call_later(_STALLED_SECONDS, self._stalled, size)

    def resume_writing(self) -> None:
        """Go on writing."""
        super().resume_writing()
        if self._stalled_timer is not None:
            self._stalled_timer.cancel()
            self._stalled_timer = None

    def _stalled(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left >= before:
            metrics.ADMISSION_REFUSED.labels(self.listener, "slow_reader").inc()
            self.transport.abort()
            return
        self._stalled_timer = self.loop.call_later(_STALLED_SECONDS, self._stalled, left)

    def _too_slow(self) -> None:
        self._headers_timer = None
        if not self.transport.is_closing():
            metrics.ADMISSION_REFUSED.labels(self.listener, "slow_headers").inc()
            self.transport.abort()

    def _refuse_headers(self) -> None:
        if not self.transport.is_closing():
            metrics.ADMISSION_REFUSED.labels(self.listener, "headers").inc()
            self._ends = True
            self._discarded = 0
            self.transport.write(_TOO_LARGE)
            self._linger()

    def _closing_early(self, cycle: Any, send: Send) -> Send:
        """Return *send*, with the header by which the caller of an early answer does not use the connection again."""

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start" and cycle.more_body:
                self._early = True
                await send({**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]})
                cycle.keep_alive = True  # uvicorn would close at the end of the answer, and reset the connection
            else:
                await send(message)

        return sending

    def _linger(self) -> None:
        if self._linger_timer is None:
            # Not `close`: behind TLS it would read on, for as long as the caller sends.
            self._linger_timer = self.loop.call_later(_LINGER_SECONDS, self.transport.abort)

    def _cancel_timers(self) -> None:
        for timer in (self._headers_timer, self._stalled_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        self._headers_timer = self._stalled_timer = self._linger_timer = None


def client_certificate(scope: Mapping[str, Any]) -> bytes | None:
    """Return the certificate (DER) behind a request, None where there is none."""
    found: bytes | None = scope.get("state", {}).get(_CERTIFICATE)
    return found
