"""Golden records of the subjects of a call: rows, keys, unsealing; absent is one word.

Nobody is told why there is no record: unknown, erased, restricted, set aside by the fold, of another library. Each is
`None` here, after the same reads and as much decryption: where there is nothing to open, a decoy is opened, and its
value goes through the view as the others do, to be thrown away.

Two rows are opened for each subject: its own, which may lead to the record of a linked one, and that record. A row
proves itself before what it leads to is used; where there is none, the decoy is opened in its place.

What is answered is of one moment: the numbers of the buckets' batches are read before and after the rows, and the rows
again where a step was committed between.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from exchange.hub.fold.golden import FieldFlag, Provenance, unpack_provenance
from exchange.hub.fold.identity import Handle, bucket_of
from exchange.hub.fold.rules import Rules
from exchange.hub.store.keys import HubKeys
from exchange.hub.store.model import DISPUTED, RESTRICTED, GoldenFlag, GoldenRow, Mark, WrappedKey
from exchange.hub.store.rules_store import RulesStore
from exchange.hub.store.sealing import Keyring, golden_context, unseal
from exchange.hub.store.store import HubStore
from registry.database.unit_of_work import Database, Reader
from schemas.errors import Reason, UnavailableError

__all__ = ["GoldenReading", "OpenedRecord", "ReadRecords"]

_READS: Final = 5  # of one call, while steps are committed
_DAY: Final = 86_400_000_000  # microseconds
_EVERY: Final = ""  # field of a mark on the whole record
_NOT_SHOWN: Final = GoldenFlag.MOVED | GoldenFlag.QUARANTINED


@dataclass(frozen=True, slots=True)
class OpenedRecord:
    """A golden record that was opened. Its representation leaves out the value.

    Attributes:
        framed: Avro, framed by the schema that it was written under.
        unsure: fields that are in conflict, disputed or stale.
    """

    framed: bytes = field(repr=False)
    unsure: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRecords:
    """What a call read.

    Attributes:
        records: of each subject, in order; None for an absent one.
        basis: number of the last batch of each bucket that was asked; 0 before the first.
        rules: version of the library's active rules; 0 for none.
    """

    records: Sequence[OpenedRecord | None]
    basis: Mapping[int, int]
    rules: int


@dataclass(frozen=True, slots=True)
class _Stored:
    asked: Sequence[Handle]
    direct: Mapping[Handle, GoldenRow]  # of the handle itself
    rows: Mapping[Handle, GoldenRow]  # by the handle that was asked for, where its record stands
    keys: Mapping[Handle, WrappedKey]
    marks: Mapping[Handle, Sequence[Mark]]
    basis: Mapping[int, int]
    rules: Mapping[int, Rules]
    active: int


class GoldenReading:
    """Reads golden records.

    Args:
        database: of the hub's store.
        store: of golden records.
        rules: of libraries.
        keys: of the hub.
    """

    def __init__(self, database: Database, store: HubStore, rules: RulesStore, keys: HubKeys) -> None:
        self._database = database
        self._store = store
        self._rules = rules
        self._keys = keys
        self._decoy = _Decoy()

    def read(self, library: str, handles: Sequence[Handle], now: int) -> ReadRecords:
        """Return the golden records of subjects, opened.

        Args:
            library: whose records.
            handles: of the subjects; one may be there twice.
            now: microseconds UTC.

        Raises:
            CorruptError: ROW_FORGED, RECORDS_CORRUPT: a row is not one that the hub wrote as it stands.
            InvalidError: CONFIG_INVALID, a key of the hub is missing.
            UnavailableError: OVERLOADED, steps were committed again and again meanwhile; the database is away.
        """
        for _ in range(_READS):
            with self._database.read() as reader:
                stored = self._stored(reader, library, handles)
                settled = self._basis(reader, handles) == stored.basis
            if settled:
                return self._opened(library, stored, now)
        raise UnavailableError(
            Reason.OVERLOADED,
            "golden records changed each time that they were read; nothing was answered, ask again",
            retry_after=0.5,
        )

    def _basis(self, reader: Reader, handles: Collection[Handle]) -> Mapping[int, int]:
        last = self._store.last_batches(reader)
        return {bucket: last.get(bucket, 0) for bucket in {bucket_of(one) for one in handles}}

    def _stored(self, reader: Reader, library: str, handles: Sequence[Handle]) -> _Stored:
        basis = self._basis(reader, handles)
        direct = self._store.golden(reader, handles)
        # Read twice for everybody, so that who was linked to another record is not told by the time that it takes.
        heads = {one: _head(direct.get(one), one) for one in handles}
        found = self._store.golden(reader, {*heads.values()})
        marks: dict[Handle, list[Mark]] = {}
        for mark in self._store.marks(reader, {*handles, *heads.values()}):
            if mark.library == library and mark.to_applied is None:
                marks.setdefault(mark.handle, []).append(mark)
        versions = self._rules.versions(reader, library)
        active = self._rules.active(reader, library)
        return _Stored(
            asked=handles,
            direct=direct,
            rows={one: found[head] for one, head in heads.items() if head in found},
            keys=self._store.keys(reader, {*handles, *heads.values()}),
            marks={one: [*marks.get(one, ()), *marks.get(head, ())] for one, head in heads.items()},
            basis=basis,
            rules={one.rules.version: one.rules for one in versions},
            active=0 if active is None else active.rules.version,
        )

    def _opened(self, library: str, stored: _Stored, now: int) -> ReadRecords:
        ring = Keyring.unwrapped(self._keys, stored.keys.values())
        records = [self._open(library, one, stored, ring, now) for one in stored.asked]
        return ReadRecords(records=records, basis=stored.basis, rules=stored.active)

    def _open(self, library: str, asked: Handle, stored: _Stored, ring: Keyring, now: int) -> OpenedRecord | None:
        row, direct = stored.rows.get(asked), stored.direct.get(asked)
        marks = stored.marks[asked]
        # The row that was followed proves itself first: else who writes to the database leads to another's record.
        if direct is not None and asked in ring.keys and (own := ring.of(asked)) is not None:
            unseal(own, golden_context(direct), direct.sealed)
        else:
            self._decoy.open_row()
        if row is None or asked not in ring.keys or ring.of(asked) is None or (key := ring.of(row.handle)) is None:
            if row is not None or direct is not None:
                ring.of(asked)  # raises where the row of its key was removed
            self._decoy.open()
            return None
        plain = unseal(key, golden_context(row), row.sealed)
        hidden = row.library != library or row.flags & _NOT_SHOWN or any(one.kind == RESTRICTED for one in marks)
        if hidden or not plain:
            return None
        return OpenedRecord(plain, _unsure(unpack_provenance(row.prov), stored.rules.get(row.rules), marks, now))


def _head(row: GoldenRow | None, asked: Handle) -> Handle:
    return Handle(row.prov) if row is not None and row.flags & GoldenFlag.MOVED else asked


def _unsure(provenance: Provenance, rules: Rules | None, marks: Collection[Mark], now: int) -> frozenset[str]:
    """Return the fields on which no "yes" or "no" may rest.

    All of them where the record may have changed by itself since it was folded, or its rules are not known.
    """
    if rules is None or len(rules.stored) != len(provenance.fields):
        return EVERY_FIELD
    if provenance.next_change is not None and provenance.next_change <= now:
        return EVERY_FIELD
    disputed = {one.field for one in marks if one.kind == DISPUTED}
    if _EVERY in disputed:
        return EVERY_FIELD
    found = set(disputed)
    for name, (source, flags) in zip(rules.stored, provenance.fields, strict=True):
        days = rules.fields[name].fresh_days
        stale = source is not None and days and provenance.sources[source].recorded_at + days * _DAY <= now
        if stale or flags & FieldFlag.CONFLICT:
            found.add(name)
    return frozenset(found)


EVERY_FIELD: Final = frozenset({"*"})
"""Stands for all fields of a record."""


class _Decoy:
    """As much decryption as a subject's: its key unwrapped, a row opened. Nothing is in it."""

    def __init__(self) -> None:
        self._outer, self._inner = AESGCM(os.urandom(32)), AESGCM(os.urandom(32))
        self._nonce = os.urandom(12)
        self._wrapped = self._outer.encrypt(self._nonce, bytes(32), b"")
        self._sealed = self._inner.encrypt(self._nonce, bytes(300), b"")

    def open(self) -> None:
        self._outer.decrypt(self._nonce, self._wrapped, b"")
        self.open_row()

    def open_row(self) -> None:
        """Open a row alone: a subject's key is unwrapped once for both of its rows."""
        self._inner.decrypt(self._nonce, self._sealed, b"")
