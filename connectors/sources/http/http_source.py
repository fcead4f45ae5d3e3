"""HTTP source: the records of a JSON API, page by page, as one portion a pass.

    paging         none, page (a number that rises until a page is empty), cursor (a value of each page, until it has
                   none), link (`Link: <…>; rel="next"`, RFC 8288)
    incremental    a parameter gets the greatest value that a record had in the pass before; records with that value
                   come again, and are unchanged

The pages of a pass are read once, into a file in the connector's state that no other user may read, and the portion is
that file: it can be read twice, and its digest identifies it. The file is removed when the portion is confirmed, and
what is remembered of an incremental pass moves then, not before.

A page twice in a row means that the API does not know the parameter, and a cursor twice that it goes round in circles:
both end the pass.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from typing_extensions import Unpack, override

from connectors.port import Portion, Replaces, SnapshotSource
from connectors.sources.file_portion import FileFormat, FileSignature, KnownFile
from connectors.sources.http.http_client import HttpSourceClient, Page
from connectors.sources.http.member_path import MemberPath
from connectors.sources.json_lines_file import JsonLinesPortion, cell_of, json_of
from schemas.errors import InvalidError, PoolError, Reason, UnavailableError

__all__ = ["MAX_SPOOL", "HttpRequest", "HttpSource", "Incremental", "Paging", "SourceMemory"]

MAX_SPOOL = 4 << 30
"""Bytes of the pages of one pass, on disk."""

_MAX_PAGES = 1_000_000
_SPOOL_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_CURSOR = "http_cursor"  # in the memory


class SourceMemory(Protocol):
    """Values by name that outlive the process; the ledger."""

    def meta(self, name: str) -> str:
        """Return a value; empty when there is none."""
        ...

    def set_meta(self, **values: str) -> None:
        """Store values."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Paging:
    """How the next page is asked for.

    Attributes:
        kind: see the module.
        parameter: that gets the number, or the cursor.
        first: number of the first page.
        path: of a cursor in a page.
    """

    kind: Literal["none", "page", "cursor", "link"] = "none"
    parameter: str = ""
    first: int = 1
    path: str = "$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incremental:
    """The parameter for what changed since the last pass.

    Attributes:
        parameter: that gets the value.
        path: of the value in a record: a whole number, or a text that sorts as its times do (RFC 3339 in one zone).
        initial: value of the first pass; empty = without the parameter.
    """

    parameter: str
    path: str
    initial: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """What is asked, and where its records are.

    Attributes:
        path: of the source's address.
        query: parameters of every request.
        records: path of the array of records in a page.
        fields: column → its path in a record; empty = the members of each record.
        paging: see there.
        incremental: see there.
    """

    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    records: str = "$"
    fields: Mapping[str, str] = field(default_factory=dict)
    paging: Paging = Paging()
    incremental: Incremental | None = None


class HttpSource(SnapshotSource):
    """One request of one API. Used by one thread."""

    def __init__(
        self,
        client: HttpSourceClient,
        request: HttpRequest,
        memory: SourceMemory,
        spool: Path,
        replaces: Replaces,
        *,
        max_spool: int = MAX_SPOOL,
    ) -> None:
        """Configure; ask nothing yet.

        Args:
            client: of the source.
            request: what is asked.
            memory: of incremental passes.
            spool: file for the pages of a pass.
            replaces: what a pass states; NOTHING for an incremental one.
            max_spool: bytes of the spool.

        Raises:
            InvalidError: CONFIG_INVALID, a path.
        """
        self._client = client
        self._request = request
        self._memory = memory
        self._spool = spool
        self._max_spool = max_spool
        self._replaces = replaces
        self._records = MemberPath(request.records)
        self._cursor = MemberPath(request.paging.path)
        self._since = MemberPath(request.incremental.path) if request.incremental else None
        self._fields = {name: MemberPath(path) for name, path in request.fields.items()}

    @override
    def portions(self, fingerprint: bytes) -> Iterator[Portion]:
        since = self._last(fingerprint)
        try:
            digest, greatest = self._read_pages(since)
            known = KnownFile(
                identity=digest[:16],
                encoding="utf-8",
                file_format=FileFormat(),
                replaces=self._replaces,
                signature=FileSignature.of(self._spool),
            )
        except OSError as error:
            self._remove_spool()
            raise UnavailableError(
                Reason.SOURCE_UNAVAILABLE,
                f"{self._spool} cannot be written ({error.strerror}); is there room, and permission?",
            ) from error
        except PoolError:
            self._remove_spool()
            raise
        yield _PassPortion(self._spool, self._request.path, self._fields, self, fingerprint, greatest, **known)

    @override
    def close(self) -> None:
        self._client.close()
        self._remove_spool()

    def confirm(self, fingerprint: bytes, greatest: str) -> None:
        """Store up to where a confirmed pass has read, and remove its pages."""
        if self._since is not None and greatest:
            self._memory.set_meta(**{_CURSOR: json.dumps({"fingerprint": fingerprint.hex(), "value": greatest})})
        self._remove_spool()

    def _last(self, fingerprint: bytes) -> str:
        incremental = self._request.incremental
        if incremental is None:
            return ""
        with suppress(ValueError, KeyError, TypeError):
            stored = json.loads(self._memory.meta(_CURSOR))
            if stored["fingerprint"] == fingerprint.hex():  # what another mapping read is read again
                return str(stored["value"])
        return incremental.initial

    def _read_pages(self, since: str) -> tuple[bytes, str]:
        """Read all pages into the spool; return its digest, and the greatest value of an incremental pass."""
        digest, greatest, size = hashlib.sha256(), since, 0
        descriptor = os.open(self._spool, _SPOOL_FLAGS, 0o600)
        with os.fdopen(descriptor, "wb") as spool:
            for page in self._pages(since):
                for record in self._records_of(page):
                    line = _line(record)
                    size += len(line)
                    if size > self._max_spool:
                        raise InvalidError(
                            Reason.CONFIG_INVALID,
                            f"{self._request.path}: a pass has more than {self._max_spool >> 20:,} MiB of records. If "
                            "the API really has so many, raise `source.max_pass`; or ask for what changed alone "
                            "(`incremental:`)",
                        )
                    digest.update(line)
                    spool.write(line)
                    value = cell_of(self._since.find(record)) if self._since is not None else None
                    if value and _is_greater(value, greatest):
                        greatest = value
        return digest.digest(), greatest

    def _records_of(self, page: Page) -> Sequence[Any]:
        found = self._records.find(page.value)
        if not isinstance(found, list):
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{self._request.path} has no array at {self._records.text}; expected that of the records (`records:`)",
            )
        return found

    def _pages(self, since: str) -> Iterator[Page]:
        request, paging = self._request, self._request.paging
        query = dict(request.query)
        if request.incremental is not None and since:
            query[request.incremental.parameter] = since
        path, state, last = request.path, "", b""
        number = paging.first
        for _ in range(_MAX_PAGES):
            more = {"page": {paging.parameter: str(number)}, "cursor": {paging.parameter: state} if state else {}}
            more_query = {**query, **more.get(paging.kind, {})}
            page = self._client.get(path, more_query, linked=path is not request.path)
            records = self._records_of(page)
            yield page
            match paging.kind:
                case "none":
                    return
                case "page":
                    number += 1
                    told = hashlib.sha256(json_of(records).encode("utf-8", "surrogatepass")).digest()
                    if records and told == last:
                        raise self._circle(f"page {number - 1} is the same as the one before")
                    last, next_ = told, "more" if records else ""
                case "cursor":
                    next_ = cell_of(self._cursor.find(page.value)) or ""
                    if next_ and next_ == state:
                        raise self._circle("a page has the cursor with which it was asked for")
                    state = next_
                case _:
                    next_ = page.next_url
                    if next_ and next_ == path:
                        raise self._circle("a page links to itself")
                    path, query = next_, {}
            if not next_:
                return
        raise self._circle(f"there are more than {_MAX_PAGES} pages")

    def _circle(self, what: str) -> InvalidError:
        return InvalidError(
            Reason.CONFIG_INVALID, f"{self._request.path}: {what}; does the API know `paging` as it is configured?"
        )

    def _remove_spool(self) -> None:
        with suppress(OSError):
            self._spool.unlink(missing_ok=True)


class _PassPortion(JsonLinesPortion):
    """The records of one pass."""

    def __init__(
        self,
        path: Path,
        name: str,
        fields: Mapping[str, MemberPath],
        source: HttpSource,
        fingerprint: bytes,
        greatest: str,
        **known: Unpack[KnownFile],
    ) -> None:
        self._fields = fields
        super().__init__(path, **known)
        self.name = name
        self._source = source
        self._fingerprint = fingerprint
        self._greatest = greatest

    @override
    def confirm(self) -> None:
        self._source.confirm(self._fingerprint, self._greatest)

    @override
    def _names(self) -> list[str]:
        return list(self._fields) if self._fields else super()._names()

    @override
    def _cells(self, found: dict[str, Any]) -> Sequence[str | None]:
        if not self._fields:
            return super()._cells(found)
        return [cell_of(path.find(found)) for path in self._fields.values()]


def _line(record: Any) -> bytes:
    text = json_of(record)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair; the parser of the portion refuses the line
        return text.encode("ascii", "backslashreplace") + b"\n"


def _is_greater(value: str, than: str) -> bool:
    if f"{value}{than}".isascii() and value.isdecimal() and than.isdecimal():
        value, than = value.lstrip("0"), than.lstrip("0")  # of any length: int() has a limit
        return (len(value), value) > (len(than), than)
    return value > than
