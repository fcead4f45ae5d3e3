"""HTTP client of a source: credentials, rate limit, repetition, bounds. TLS is always verified.

    credentials   a bearer token (RFC 6750), or one that the OAuth 2.0 client credentials grant gives (RFC 6749, section
                  4.4); it is asked for again shortly before it ends, and once after a 401. It is sent to the source's
                  own address alone: a redirect, or a link to another host, is refused
    rate          requests are at least so far apart
    repetition    408, 425, 429, 5xx and no answer: three attempts with back-off, after `Retry-After` where it is given;
                  then the pass ends, and the publisher tries again later; at once where the answer asks for more than
                  a minute
    bounds        64 MiB of a page, unpacked; what is larger is refused, and so is what was compressed several times:
                  its first bytes could unpack to more than there is memory. Ten times the timeout for a whole answer:
                  each of its bytes begins the timeout again

No error holds a query, a header, a body or the path of a link: they may show values, or a secret.
"""

import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from connectors.retry import Backoff, retry_after_of
from connectors.sources.json_lines_file import parse_json
from schemas.errors import InvalidError, Reason, RefusedError, UnavailableError

__all__ = ["Credentials", "HttpSourceClient", "OAuthClient", "Page"]

_MAX_PAGE = 64 << 20  # bytes
_LONGEST_ANSWER = 10  # timeouts
_ENCODINGS = frozenset({"", "identity", "gzip", "deflate"})
_ATTEMPTS = 3
_TO_BE_REPEATED = frozenset({408, 425, 429})
_LONGEST_WAIT = 60.0  # seconds of waiting here, where nothing else of the connector goes on
_EARLY = 30.0  # seconds before its end at which a token is asked for again
_NO_END = 300.0  # seconds of a token that states no end


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthClient:
    """A client of an authorization server (client credentials grant)."""

    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str = ""


Credentials = str | OAuthClient | None
"""A bearer token, a client, or nothing."""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer: its JSON, with numbers as they came, and the address of the next one by its `Link` header."""

    value: Any
    next_url: str


class HttpSourceClient:
    """The client of one source. Used by one thread."""

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        *,
        authority: Path | None = None,
        timeout: float = 60.0,
        requests_per_second: float = 0.0,
        stop: threading.Event | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        backoff: float = 0.5,
    ) -> None:
        """Configure; call nothing yet.

        Args:
            url: of the source; every request goes to its scheme, host and port.
            credentials: see the module.
            authority: certificates (PEM) by which the source's is verified; None = those of the system.
            timeout: seconds of a request.
            requests_per_second: at most; 0 = as fast as they are answered.
            stop: ends a wait.
            monotonic: seconds, of waiting.
            backoff: seconds, the maximum of the first delay.

        Raises:
            InvalidError: CONFIG_INVALID, the authority cannot be read.
        """
        self._origin = _origin(httpx.URL(url))
        self._url = httpx.URL(url)
        self._credentials = credentials
        self._interval = 1.0 / requests_per_second if requests_per_second else 0.0
        self._stop = stop or threading.Event()
        self._monotonic = monotonic
        self._base = backoff
        self._not_before = 0.0
        self._token, self._token_until = "", 0.0
        try:
            context = ssl.create_default_context(cafile=authority)
        except (OSError, ssl.SSLError) as error:
            raise InvalidError(Reason.CONFIG_INVALID, f"{authority} holds no certificates that can be read") from error
        self._timeout = timeout
        self._http = httpx.Client(
            verify=context, timeout=timeout, follow_redirects=False, headers={"accept-encoding": "gzip, deflate"}
        )

    def get(self, path: str, query: Mapping[str, str], *, linked: bool = False) -> Page:
        """Return a page.

        Args:
            path: of the source's address, or a whole address that a page linked to.
            query: parameters, added to those of the path.
            linked: the path is what a page linked to, and no error shows it.

        Raises:
            UnavailableError: SOURCE_UNAVAILABLE, it does not answer; try again.
            RefusedError: SOURCE_UNAVAILABLE, it does not accept the credentials.
            InvalidError: CONFIG_INVALID, the answer is no JSON, too large, or one that says that the address is wrong.
        """
        try:
            url = self._url.join(path)
            asked = url.copy_merge_params(query)
        except httpx.InvalidURL as error:
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{self._url.host} names for the next page what is no address; expected a link, or a cursor that fits "
                "into one",
            ) from error
        if _origin(url) != self._origin:
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{self._url.host} links to another host for the next page; expected its own: the credentials are "
                "sent to no other",
            )
        for renewed in (False, True):
            headers = {"accept": "application/json", **self._authorization(renew=renewed)}
            status, body, links = self._repeated(lambda: self._http.build_request("GET", asked, headers=headers))  # noqa: B023
            if status != 401 or not isinstance(self._credentials, OAuthClient):
                break
        where = f"{url.host} at the address of a link" if linked else f"{url.host}{url.path}"
        self._require_ok(status, where)
        return Page(self._json(body, where), links.get("next", {}).get("url", ""))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _authorization(self, *, renew: bool) -> dict[str, str]:
        if self._credentials is None:
            return {}
        if isinstance(self._credentials, str):
            return {"authorization": f"Bearer {self._credentials}"}
        if renew or self._monotonic() >= self._token_until:
            self._ask_token(self._credentials)
        return {"authorization": f"Bearer {self._token}"}

    def _ask_token(self, client: OAuthClient) -> None:
        form = {"grant_type": "client_credentials", **({"scope": client.scope} if client.scope else {})}
        basic = httpx.BasicAuth(client.client_id, client.client_secret)

        def request() -> httpx.Request:
            made = self._http.build_request("POST", client.token_url, data=form, headers={"accept": "application/json"})
            return next(basic.auth_flow(made))

        status, body, _ = self._repeated(request)
        url = httpx.URL(client.token_url)
        if status in {400, 401, 403}:
            raise RefusedError(
                Reason.SOURCE_UNAVAILABLE, f"{url.host} gives the client no token ({status}); check its id and secret"
            )
        self._require_ok(status, f"{url.host}{url.path}")
        answer = self._json(body, f"{url.host}{url.path}")
        token = answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not token.isascii():
            raise InvalidError(
                Reason.CONFIG_INVALID, f"{url.host} answered without an access_token; is it a token_url?"
            )
        try:
            lifetime = float(answer.get("expires_in") or _NO_END)
        except (TypeError, ValueError):
            lifetime = _NO_END
        self._token, self._token_until = token, self._monotonic() + max(lifetime - _EARLY, 0.0)

    def _repeated(self, make: Callable[[], httpx.Request]) -> tuple[int, bytes, Mapping[str, Any]]:
        """Send a request until it is answered; return status, body and links."""
        backoff = Backoff(give_up_after=float("inf"), stop=self._stop, monotonic=self._monotonic, base=self._base)
        for attempt in range(_ATTEMPTS):
            request = make()
            self._keep_rate()
            try:
                status, body, links, wait = self._send(request)
            except (httpx.TransportError, httpx.DecodingError) as error:
                failure = UnavailableError(
                    Reason.SOURCE_UNAVAILABLE, f"{request.url.host} does not answer ({type(error).__name__})"
                )
            else:
                if status < 500 and status not in _TO_BE_REPEATED:
                    return status, body, links
                failure = UnavailableError(
                    Reason.SOURCE_UNAVAILABLE, f"{request.url.host} answered {status}", retry_after=wait
                )
            if attempt + 1 == _ATTEMPTS or self._stop.is_set() or (failure.retry_after or 0.0) > _LONGEST_WAIT:
                break
            backoff.wait_or_raise(failure)
        raise failure

    def _send(self, request: httpx.Request) -> tuple[int, bytes, Mapping[str, Any], float | None]:
        begun = self._monotonic()
        answer = self._http.send(request, stream=True)
        try:
            if answer.headers.get("content-encoding", "").strip().lower() not in _ENCODINGS:
                raise InvalidError(
                    Reason.CONFIG_INVALID,
                    f"{request.url.host} answered in another encoding than was asked for; expected gzip, or none",
                )
            parts, size = [], 0
            for part in answer.iter_bytes():
                if self._monotonic() - begun > _LONGEST_ANSWER * self._timeout:
                    raise httpx.ReadTimeout("the answer does not end", request=request)
                parts.append(part)
                size += len(part)
                if size > _MAX_PAGE:
                    raise InvalidError(
                        Reason.CONFIG_INVALID,
                        f"{request.url.host} answered with more than 64 MiB; ask for smaller pages",
                    )
        finally:
            answer.close()
        wait = retry_after_of(answer.headers.get("retry-after"), datetime.now(UTC))
        links: Mapping[Any, Any] = answer.links
        return answer.status_code, b"".join(parts), links, wait

    def _keep_rate(self) -> None:
        left = self._not_before - self._monotonic()
        if left > 0:
            self._stop.wait(left)
        self._not_before = self._monotonic() + self._interval

    def _require_ok(self, status: int, where: str) -> None:
        if 200 <= status < 300:
            return
        if status in {401, 403}:
            raise RefusedError(
                Reason.SOURCE_UNAVAILABLE, f"{where} answered {status}; do the credentials have the right to read it?"
            )
        raise InvalidError(Reason.CONFIG_INVALID, f"{where} answered {status}; expected 200. Is the address right?")

    def _json(self, body: bytes, where: str) -> Any:
        try:
            return parse_json(body.decode("utf-8-sig"))
        except ValueError as error:  # also where it is not UTF-8
            raise InvalidError(Reason.CONFIG_INVALID, f"{where} answered with what is no JSON in UTF-8") from error


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
