"""REST client of a schema registry, for commands that write to one or copy one.

The registry is this pool's or any other with Confluent's REST API. Nothing is cached. A token is never a command-line
argument, since other users of the machine could read it: it is read from a file. An error carries the message of the
registry that was called, and its error code in `details["code"]`.
"""

import ssl
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from schemas.errors import ConflictError, InvalidError, PoolError, Reason, RefusedError, UnavailableError

__all__ = ["RegistryAdminClient"]

_TIMEOUT = 60.0  # seconds for one call
_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
_PAGE = 1_000


class RegistryAdminClient:
    """Client of one registry.

    Args:
        url: such as `https://pool.example:8081`.
        token: bearer token; None for a registry without authentication.
        user: (name, password), for a registry with Basic authentication.
        authority: PEM file of the certificate authority of the registry; None = those of the system.
        certificate: PEM files (certificate, key) of the client, for mutual TLS.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        user: tuple[str, str] | None = None,
        authority: Path | None = None,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        context: ssl.SSLContext | bool = True
        if authority is not None or certificate is not None:
            context = ssl.create_default_context(cafile=str(authority) if authority else None)
            if certificate is not None:
                context.load_cert_chain(*map(str, certificate))
        headers = {"accept": _MEDIA_TYPE, "content-type": _MEDIA_TYPE}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        self._url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self._url, headers=headers, auth=user, verify=context, timeout=_TIMEOUT, trust_env=False
        )
        # A command may end by many exceptions; in each case the connections are closed with the object.
        weakref.finalize(self, self._http.close)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """Return the document at a path.

        Raises:
            PoolError: see `call`.
        """
        return self.call("GET", path, query=query)

    def call(self, method: str, path: str, body: Any = None, *, query: Mapping[str, Any] | None = None) -> Any:
        """Send one request and return the answer.

        Args:
            method: HTTP method.
            path: from the root, with its segments percent-encoded.
            body: a JSON value; None for none.
            query: parameters; those that are None are left out, booleans become `true` and `false`.

        Raises:
            RefusedError: the caller is not authenticated, or not permitted.
            InvalidError: not found, or not accepted.
            ConflictError: incompatible, or in conflict with the registry's state.
            UnavailableError: no answer, or one that asks to retry later.
        """
        params = {name: _parameter(value) for name, value in (query or {}).items() if value is not None}
        try:
            answer = self._http.request(method, path, params=params, json=body)
        except httpx.HTTPError as error:
            raise UnavailableError(
                Reason.OVERLOADED,
                f"the registry at {self._url} does not answer ({type(error).__name__}); check the address",
                retry_after=1.0,
            ) from error
        try:
            document = answer.json() if answer.content else None
        except ValueError as error:
            raise InvalidError(
                Reason.REQUEST_INVALID, f"{self._url} answers with what is no JSON; is it a schema registry?"
            ) from error
        if not answer.is_success:
            raise _error(answer.status_code, document)
        return document

    def subjects(self, prefix: str = "", *, deleted: bool = True) -> Iterator[str]:
        """Return the names of subjects, in the registry's order."""
        offset = 0
        while True:
            page = self.get("/subjects", subjectPrefix=prefix or None, deleted=deleted, offset=offset, limit=_PAGE)
            yield from page
            # A registry without pagination returns all at once.
            if len(page) != _PAGE:
                return
            offset += _PAGE

    def version(self, subject: str, number: int | str = "latest", *, deleted: bool = False) -> dict[str, Any]:
        """Return a version: subject, version, id, schema, and schemaType, references, metadata and ruleSet if any."""
        document: dict[str, Any] = self.get(f"/subjects/{quote(subject, safe='')}/versions/{number}", deleted=deleted)
        return document

    def references_of(self, version: Mapping[str, Any]) -> list[str]:
        """Return the texts of the schemas that a version references, dependencies first."""
        texts: dict[tuple[str, int], str] = {}
        self._collect(version, texts)
        return list(texts.values())

    def _collect(self, version: Mapping[str, Any], texts: dict[tuple[str, int], str]) -> None:
        for item in version.get("references") or ():
            key = (str(item["subject"]), int(item["version"]))
            if key in texts:
                continue
            referenced = self.version(*key, deleted=True)
            self._collect(referenced, texts)
            texts[key] = str(referenced["schema"])


def _parameter(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _error(status: int, document: Any) -> PoolError:
    body = document if isinstance(document, dict) else {}
    code = str(body.get("error_code", status))
    message = str(body.get("message", f"HTTP {status}"))[:5_000]
    details = {"code": code}
    if status in (401, 403):
        reason = Reason.NO_IDENTITY if status == 401 else Reason.ROLE_MISSING
        return RefusedError(reason, message, details=details)
    if status == 404:
        return InvalidError(Reason.NOT_FOUND, message, details=details)
    if status == 409:
        return ConflictError(Reason.VERSION_CONFLICT, message, details=details)
    if status >= 500 or status == 429:
        return UnavailableError(Reason.OVERLOADED, message, details=details, retry_after=1.0)
    return InvalidError(Reason.REQUEST_INVALID, message, details=details)
