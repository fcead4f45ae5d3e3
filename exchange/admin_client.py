"""HTTP client of the control API, with its address and token from options, environment or the data folder.

A token is never a command-line argument, since other users of the machine could read it: it is read from the file that
`--token-file` or POOL_TOKEN_FILE names, or from standard input (`--token-file -`). On the pool's own machine `--data
DIR` gives the address and the authority, and no account: who has the folder is nobody's officer. Until the first two
data authorities exist, it also gives the token that adds them, and does nothing else.
"""

import json
import os
import ssl
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from exchange.config import Config
from schemas.errors import InvalidError, PoolError, Reason, UnavailableError
from schemas.status import error_of

__all__ = ["AdminClient", "from_options"]

_WAITS = 3  # times that a call waits since others at its address have failed to authenticate
_GRPC_CODES = {401: 16, 403: 7, 404: 5, 409: 9, 410: 11, 422: 3, 429: 8, 500: 15, 503: 14}


class AdminClient:
    """Client of the control API."""

    def __init__(self, url: str, token: str, authority: Path | None) -> None:
        verify: ssl.SSLContext | bool = True
        if authority is not None:
            verify = ssl.create_default_context(cafile=str(authority))
        self._url = url
        self._headers = {"authorization": f"Bearer {token}"}
        self._verify = verify

    def as_account(self, token: str) -> "AdminClient":
        """Return a client of the same API with another account's token."""
        other = AdminClient(self._url, token, None)
        other._verify = self._verify
        return other

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """Return a document, or text where the pool answers with text."""
        return self._call("GET", path, params={k: v for k, v in (query or {}).items() if v is not None})

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send a document and return the answer."""
        return self._call("POST", path, json=dict(body or {}))

    def _call(self, method: str, path: str, **content: Any) -> Any:
        for _ in range(_WAITS):
            try:
                return self._call_once(method, path, **content)
            except UnavailableError as error:
                # Others behind the same address have failed: a right token passes after the delay, which is short.
                if error.reason is not Reason.TOO_MANY_FAILURES:
                    raise
                time.sleep(error.retry_after or 1.0)
        return self._call_once(method, path, **content)

    def _call_once(self, method: str, path: str, **content: Any) -> Any:
        try:
            with httpx.Client(verify=self._verify, timeout=60.0, trust_env=False) as http:
                response = http.request(method, f"{self._url}/v1{path}", headers=self._headers, **content)
        except httpx.HTTPError as error:
            raise UnavailableError(
                Reason.GATEWAY_UNAVAILABLE,
                f"the pool at {self._url} does not answer ({type(error).__name__}); is `pool serve` running?",
            ) from error
        if response.is_success:
            is_json = response.headers.get("content-type", "").startswith("application/json")
            return response.json() if is_json else response.text
        raise _error(response)


def from_options(data: Path | None, url: str | None, token_file: Path | None, authority: Path | None) -> AdminClient:
    """Return a client by address and token file; on the pool's own machine, by data folder and token file.

    Raises:
        InvalidError: CONFIG_INVALID, without address or token, or the token file cannot be read.
    """
    if data is not None:
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


def _bound_address(config: Config) -> str:
    """Return the address of the running pool's listener: from `ports.json` if it exists, else the configured one."""
    ports = config.path("ports.json")
    if ports.exists():
        return str(json.loads(ports.read_text())["http"])
    return config.listen.http


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _error(response: httpx.Response) -> PoolError:
    try:
        document = response.json()
    except ValueError:
        document = {}
    return error_of(
        _GRPC_CODES.get(response.status_code, 13),
        document.get("reason", Reason.INTERNAL),
        document.get("detail", f"the pool answered {response.status_code}"),
        document.get("details", {}),
        _seconds(response.headers.get("retry-after", "")),
    )


def _seconds(text: str) -> float | None:
    return float(text) if text.isdigit() else None
