"""A cached, read-only client of the registry, for a department's machine.

Reading by id is cached without end: an id never comes to mean another schema. The latest version is cached for a
few seconds, because it does.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from schemas.errors import CorruptError, InvalidError, Reason, RefusedError, UnavailableError

__all__ = ["Latest", "RegistryClient"]

_REASONS = {
    40401: Reason.SUBJECT_UNKNOWN,
    40402: Reason.VERSION_UNKNOWN,
    40403: Reason.SCHEMA_UNKNOWN,
    42202: Reason.VERSION_INVALID,
    42208: Reason.SUBJECT_INVALID,
}
_MOST_IDS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest:
    """A subject's latest version.

    Attributes:
        subject, version: which. schema_id: its id. text: its schema.
    """

    subject: str
    version: int
    schema_id: int
    text: str


class RegistryClient:
    """Reads schemas. Thread-safe.

    Args:
        base_url: such as `https://pool.example:8081`.
        token: bearer token, if the registry wants one.
        verify: certificate authorities to trust, as httpx takes them.
        timeout: seconds for one request.
        fresh: seconds for which the latest version is cached.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        verify: Any = True,
        timeout: float = 10.0,
        fresh: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        headers = {"Accept": "application/vnd.schemaregistry.v1+json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self._http = httpx.Client(base_url=base_url, headers=headers, verify=verify, timeout=timeout, trust_env=False)
        self._fresh = fresh
        self._clock = clock
        self._lock = threading.Lock()
        self._texts: dict[int, str] = {}
        self._latest: dict[str, tuple[float, Latest]] = {}

    def by_id(self, schema_id: int) -> str:
        """Return the text of an id.

        Raises:
            InvalidError: SCHEMA_UNKNOWN.
            RefusedError: the caller may not read it.
            UnavailableError: OVERLOADED, when the registry does not answer.
        """
        known = self._texts.get(schema_id)
        if known is not None:
            return known
        text = _text(self._get(f"/schemas/ids/{int(schema_id)}"), "schema")
        with self._lock:
            if len(self._texts) >= _MOST_IDS:
                self._texts.clear()
            self._texts[schema_id] = text
        return text

    def latest(self, subject: str) -> Latest:
        """Return the latest version of a subject.

        Raises:
            InvalidError: SUBJECT_UNKNOWN.
            RefusedError: the caller may not read it.
            UnavailableError: OVERLOADED, when the registry does not answer.
        """
        held = self._latest.get(subject)
        if held is not None and self._clock() - held[0] < self._fresh:
            return held[1]
        answer = self._get(f"/subjects/{quote(subject, safe='')}/versions/latest")
        latest = Latest(
            subject=subject,
            version=_number(answer, "version"),
            schema_id=_number(answer, "id"),
            text=_text(answer, "schema"),
        )
        with self._lock:
            self._latest[subject] = (self._clock(), latest)
        return latest

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _get(self, path: str) -> Mapping[str, Any]:
        try:
            answer = self._http.get(path)
            body = answer.json()
        except httpx.TransportError as error:
            raise UnavailableError(
                Reason.OVERLOADED, f"the registry does not answer ({type(error).__name__}); try again", retry_after=1.0
            ) from error
        except ValueError as error:
            raise _strange() from error
        if not isinstance(body, dict):
            raise _strange()
        if answer.is_success:
            return body
        message = str(body.get("message", ""))[:500]
        if answer.status_code in (401, 403):
            reason = Reason.NO_IDENTITY if answer.status_code == 401 else Reason.ROLE_MISSING
            raise RefusedError(reason, message)
        if answer.status_code >= 500 or answer.status_code == 429:
            raise UnavailableError(Reason.OVERLOADED, f"the registry cannot answer: {message}", retry_after=1.0)
        raise InvalidError(_REASONS.get(body.get("error_code", 0), Reason.REQUEST_INVALID), message)


def _text(answer: Mapping[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str):
        raise _strange()
    return value


def _number(answer: Mapping[str, Any], name: str) -> int:
    value = answer.get(name)
    if not isinstance(value, int):
        raise _strange()
    return value


def _strange() -> CorruptError:
    return CorruptError(Reason.INTERNAL, "the answer is not a schema registry's; check the address")
