"""Ports of the record path: the objects that do single steps of publish and fetch, by name.

publish (5)       RecordChecker       root and schemas of a batch               exchange/records/writer_schemas.py
publish (6)       KeyPseudonymizer    record keys → pseudonyms                  exchange/identity/pseudonyms.py
publish (9)       ReceiptSigner       the pool's signature under a receipt      an Ed25519 private key
fetch (5)         GrantViews          the rows and fields that a grant shows    exchange/records/view_cache.py
fetch (6)         KeyPseudonymizer    pseudonyms → record keys of one grant     exchange/identity/pseudonyms.py
"""

from collections.abc import Hashable, Sequence
from typing import Protocol

from exchange.records.release import ViewOutput
from exchange.records.submission import CheckedRecords, Records
from registry.database.unit_of_work import Reader
from schemas.access import Grant
from schemas.names import Topic
from schemas.record import Packed

__all__ = ["GrantViews", "KeyPseudonymizer", "ReceiptSigner", "RecordChecker"]


class RecordChecker(Protocol):
    """Checks the records of a batch, perhaps in an engine process."""

    def check(self, topic: Topic, records: Records, values: Sequence[bytes]) -> CheckedRecords:
        """Return the keys, schemas and leaf hashes of records that match their schemas and their batch's root.

        Args:
            topic: of the batch.
            records: whose form was checked.
            values: their values, one by one.

        Raises:
            RowsRefusedError: some rows do not match their schema.
            InvalidError: SIGNATURE_INVALID, the root is not the records'; SCHEMA_UNKNOWN, a frame names a schema that
                is none of this topic's.
        """
        ...


class KeyPseudonymizer(Protocol):
    """Replaces record keys by keyed hashes (HMAC)."""

    def pseudonyms(self, topic: Topic, keys: Sequence[bytes]) -> list[bytes]:
        """Return the 16-byte pseudonym of each key under the topic's secret, in order."""
        ...

    def record_keys(self, grant_id: str, pseudonyms: Sequence[bytes]) -> bytes:
        """Return the record key of each pseudonym under the grant's secret, 16 bytes each, concatenated."""
        ...


class ReceiptSigner(Protocol):
    """Signs receipts with the pool's key."""

    def sign(self, statement: bytes, /) -> bytes:
        """Return the Ed25519 signature of a receipt's statement."""
        ...


class GrantViews(Protocol):
    """Applies the views of grants, perhaps in an engine process."""

    def apply(self, grant: Grant, values: Sequence[bytes | None]) -> ViewOutput:
        """Apply the grant's view to framed values; None is a void."""
        ...

    def json_values(self, grant: Grant, values: Packed) -> Packed:
        """Return values that the grant's view has put out, as JSON texts; a withdrawal's text is empty."""
        ...

    def definition(self, grant: Grant) -> Hashable:
        """Return what a grant's view is made from: of equal ones the output for the same values is the same."""
        ...

    def prepare(self, reader: Reader, grants: Sequence[Grant]) -> None:
        """Read what the views of these grants need, of a topic once; `apply` then reads nothing."""
        ...

    def schema_text(self, reader: Reader, schema_id: int) -> str:
        """Return the text of a view's schema.

        Raises:
            InvalidError: SCHEMA_UNKNOWN.
        """
        ...
