"""HTTP client of the control API, with its address and token from options, environment or the data folder.

A token is never a command-line argument, since other users of the machine could read it: it is read from the file that
`--token-file` or POOL_TOKEN_FILE names, or from standard input (`--token-file -`). On the pool's own machine `--data
DIR` gives the address and the authority, and no account: who has the folder is nobody's officer. Until the first two
data authorities exist, it also gives the token that adds them, and does nothing else.
"""

import contextlib
import http.client
import json
import os
import re
import ssl
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode, urlsplit

from schemas.errors import InvalidError, PoolError, Reason, UnavailableError
from schemas.status import error_of

if TYPE_CHECKING:
    from exchange.config import Config

__all__ = ["AdminClient", "from_options"]

_TIMEOUT: Final = 60.0  # seconds
_PART: Final = 65_536  # bytes of a long answer in memory at a time
_WAITS = 3  # times that a call waits where the pool says how long
_SLOWED = frozenset({Reason.TOO_MANY_FAILURES, Reason.RATE_LIMITED})
_NEXT: Final = re.compile(r'<(?:https?://[^/>]*)?/v1([^>]*)>; *rel="?next"?')
_GRPC_CODES = {401: 16, 403: 7, 404: 5, 409: 9, 410: 11, 422: 3, 429: 8, 500: 15, 503: 14}


class AdminClient:
    """Client of the control API."""

    def __init__(self, url: str, token: str, authority: Path | None) -> None:
        self._url = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {token}", "accept": "application/json", "user-agent": "pool"}
        self._tls = ssl.create_default_context(cafile=None if authority is None else str(authority))

    def as_account(self, token: str) -> "AdminClient":
        """Return a client of the same API with another account's token."""
        other = AdminClient(self._url, token, None)
        other._tls = self._tls
        return other

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """Return a document, or text where the pool answers with text."""
        given = {name: _parameter(value) for name, value in (query or {}).items() if value is not None}
        return self._call("GET", f"{_quoted(path)}?{urlencode(given, doseq=True)}" if given else _quoted(path))[0]

    def list(self, path: str, query: Mapping[str, Any] | None = None) -> list[Any]:
        """Return all items of a list, page by page where the pool answers with a cursor (`Link`, RFC 8288)."""
        given = {name: _parameter(value) for name, value in (query or {}).items() if value is not None}
        target: str | None = f"{_quoted(path)}?{urlencode(given, doseq=True)}" if given else _quoted(path)
        items: list[Any] = []
        while target is not None:
            page, link = self._call("GET", target)
            items += page
            match = _NEXT.search(link)
            target = match[1] if match and page else None
        return items

    def texts(self, path: str, query: Mapping[str, Any] | None = None) -> Iterator[str]:
        """Return a text in its parts, as many as the pool answers with a cursor (`Link`, RFC 8288)."""
        given = {name: _parameter(value) for name, value in (query or {}).items() if value is not None}
        target: str | None = f"{_quoted(path)}?{urlencode(given, doseq=True)}" if given else _quoted(path)
        while target is not None:
            text, link = self._call("GET", target)
            yield text
            match = _NEXT.search(link)
            target = match[1] if match else None

    @contextlib.contextmanager
    def download(
        self, path: str, query: Mapping[str, Any] | None = None, *, body: Mapping[str, Any] | None = None
    ) -> Iterator[Iterator[bytes]]:
        """Open an answer that may be long, and return its parts as they come; with a *body* it is posted.

        Raises:
            UnavailableError: GATEWAY_UNAVAILABLE; also from the parts, where the answer ends before its end.
        """
        given = {name: _parameter(value) for name, value in (query or {}).items() if value is not None}
        target = f"{_quoted(path)}?{urlencode(given, doseq=True)}" if given else _quoted(path)
        sent = None if body is None else json.dumps(dict(body), ensure_ascii=False).encode()
        with self._open("GET" if sent is None else "POST", target, sent) as response:
            if not 200 <= response.status < 300:  # RFC 9110, section 15.3
                raise _error(response.status, response.read(), response.getheader("retry-after", ""))
            yield self._parts(response)

    def _parts(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        try:
            while part := response.read1(_PART):
                yield part
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(
                Reason.GATEWAY_UNAVAILABLE, "the answer ended before its end: what was written is not whole; repeat it"
            ) from error

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send a document and return the answer."""
        return self._call("POST", _quoted(path), json.dumps(dict(body or {}), ensure_ascii=False).encode())[0]

    def _call(self, method: str, target: str, body: bytes | None = None) -> tuple[Any, str]:
        """Return the answer and its header `Link`."""
        for _ in range(_WAITS):
            try:
                return self._call_once(method, target, body)
            except UnavailableError as error:
                # Others behind the same address have failed, or this account has done too much: the delay is short.
                if error.reason not in _SLOWED:
                    raise
                time.sleep(error.retry_after or 1.0)
        return self._call_once(method, target, body)

    def _call_once(self, method: str, target: str, body: bytes | None) -> tuple[Any, str]:
        with self._open(method, target, body) as response:
            try:
                content = response.read()
            except (OSError, http.client.HTTPException) as error:
                raise self._no_answer(error) from error
        if 200 <= response.status < 300:  # RFC 9110, section 15.3
            is_json = response.getheader("content-type", "").partition(";")[0].strip() == "application/json"
            return json.loads(content) if is_json else content.decode(), response.getheader("link", "")
        raise _error(response.status, content, response.getheader("retry-after", ""))

    @contextlib.contextmanager
    def _open(self, method: str, target: str, body: bytes | None) -> Iterator[http.client.HTTPResponse]:
        """Send a request and return its answer, unread; the connection ends with the block."""
        headers = self._headers if body is None else {**self._headers, "content-type": "application/json"}
        with contextlib.ExitStack() as held:
            yield self._send(held, method, target, body, headers)

    def _send(
        self, held: contextlib.ExitStack, method: str, target: str, body: bytes | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        try:
            connection, base = self._connection()
            held.enter_context(contextlib.closing(connection))
            connection.request(method, f"{base}/v1{target}", body, dict(headers))
            return connection.getresponse()
        except ValueError as error:  # a port that is no number, a token that is no header
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{self._url} cannot be called with this token; expected https://HOST:PORT and a token of ASCII",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._no_answer(error) from error

    def _no_answer(self, error: Exception) -> UnavailableError:
        return UnavailableError(
            Reason.GATEWAY_UNAVAILABLE,
            f"the pool at {self._url} does not answer ({type(error).__name__}); is `pool serve` running?",
        )

    def _connection(self) -> tuple[http.client.HTTPConnection, str]:
        """Return a connection that no proxy of the environment is asked for, and the path of the address."""
        address = urlsplit(self._url)
        if address.scheme == "http":
            return http.client.HTTPConnection(address.hostname or "", address.port, timeout=_TIMEOUT), address.path
        return (
            http.client.HTTPSConnection(address.hostname or "", address.port, timeout=_TIMEOUT, context=self._tls),
            address.path,
        )


def from_options(data: Path | None, url: str | None, token_file: Path | None, authority: Path | None) -> AdminClient:
    """Return a client by address and token file; on the pool's own machine, by data folder and token file.

    Raises:
        InvalidError: CONFIG_INVALID, without address or token, or the token file cannot be read.
    """
    if data is not None:
        from exchange.config import Config  # noqa: PLC0415 - a call by address needs no configuration

        config = Config.load(data)
        scheme = "http" if config.dev else "https"
        url = url or f"{scheme}://{_bound_address(config)}"
        if token_file is None and "POOL_TOKEN_FILE" not in os.environ and (data / "bootstrap-token").exists():
            token_file = data / "bootstrap-token"
        authority = authority or (None if config.dev else data / "ca" / "authority.crt")
    url = url or os.environ.get("POOL_URL")
    token_file = token_file or _path(os.environ.get("POOL_TOKEN_FILE"))
    authority = authority or _path(os.environ.get("POOL_AUTHORITY"))
    if not url:
        raise InvalidError(
            Reason.CONFIG_INVALID, "got neither --data DIR nor --url (POOL_URL); expected one of the two"
        )
    if token_file is None:
        raise InvalidError(
            Reason.CONFIG_INVALID,
            "got no token; expected --token-file (POOL_TOKEN_FILE) with the token of your account: the pool's folder "
            "gives nobody's rights",
        )
    try:
        token = (sys.stdin.read() if str(token_file) == "-" else token_file.read_text()).strip()
    except OSError as error:
        raise InvalidError(
            Reason.CONFIG_INVALID, f"{token_file}: {error.strerror}; expected a file with the account's token"
        ) from error
    return AdminClient(url, token, authority)


def _bound_address(config: "Config") -> str:
    """Return the address of the running pool's listener: from `ports.json` if it exists, else the configured one."""
    ports = config.path("ports.json")
    if ports.exists():
        return str(json.loads(ports.read_text())["http"])
    return config.listen.http


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _parameter(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _quoted(path: str) -> str:
    return quote(path, safe="/:@,;=+~!$&'()*")


def _error(status: int, content: bytes, retry_after: str) -> PoolError:
    try:
        document = json.loads(content)
    except ValueError:
        document = {}
    if not isinstance(document, dict):
        document = {}
    return error_of(
        _GRPC_CODES.get(status, 13),
        document.get("reason", Reason.INTERNAL),
        document.get("detail", f"the pool answered {status}"),
        document.get("details", {}),
        _seconds(retry_after),
    )


def _seconds(text: str) -> float | None:
    return float(text) if text.isdigit() else None
