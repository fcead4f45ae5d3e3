"""Record encoding: mapped rows → Avro datums that satisfy the contract's own rules, and their digests."""

import struct
from collections.abc import Sequence

import pyarrow as pa

from connectors.mapping.contract import Contract
from connectors.port import Reject, RejectCode, RowChunk
from connectors.publishing.earlier_contracts import digest_of
from registry.codec.codec import Engine, RowError
from schemas.errors import Reason
from schemas.record import MAX_BATCH_BYTES

__all__ = ["LARGEST_VALUE", "RecordEncoder"]

LARGEST_VALUE = MAX_BATCH_BYTES - 65_536
"""Bytes of a record at most, and of the values of a batch: the rest is for what is not values."""

_MAX_REPORTED = 100  # rows of one batch that an engine names at most
_CODE_OF_RULE = {  # rule of the contract → code of its violation
    "codes": RejectCode.ENUM,
    "cn_id18": RejectCode.ID_CHECKSUM,
    "uscc": RejectCode.ID_CHECKSUM,
    "not_empty": RejectCode.NULL_NOT_ALLOWED,
}


class RecordEncoder:
    """The engine of a contract's schema, for rows of one publication.

    Attributes:
        contract: of the schema.
        head: the bytes before each datum (Confluent's frame).
    """

    def __init__(self, contract: Contract, engine: Engine) -> None:
        self.contract = contract
        self.engine = engine
        self.head = struct.pack(">bI", 0, contract.schema_id)

    def digest(self, datum: bytes) -> bytes:
        """Return 16 bytes that change with the datum and with what it means."""
        return digest_of(datum, self.contract)

    def encode(
        self, chunk: RowChunk, batch: pa.RecordBatch, chosen: list[int], rejects: list[Reject]
    ) -> tuple[list[bytes], list[int]]:
        """Return the datums of the rows that satisfy the contract's own rules, and those rows."""
        if not chosen:
            return [], []
        datums = list(self.engine.encode(batch))
        errors = self._row_errors(datums)
        for index, datum in enumerate(datums):
            if len(datum) > LARGEST_VALUE and index not in errors:
                errors[index] = RowError(
                    index=index, reason=Reason.BATCH_TOO_LARGE, field="", message=f"at most {MAX_BATCH_BYTES} bytes"
                )
        if not errors:
            return datums, chosen
        rejects += [self._rule_reject(chunk, chosen[index], error) for index, error in sorted(errors.items())]
        kept = [index for index in range(len(datums)) if index not in errors]
        return [datums[index] for index in kept], [chosen[index] for index in kept]

    def _rule_reject(self, chunk: RowChunk, row: int, error: RowError) -> Reject:
        contract_field = self.contract.field(error.field)
        rules = contract_field.rules if contract_field is not None else ()
        code = next((code for rule, code in _CODE_OF_RULE.items() if rule in rules), RejectCode.TYPE)
        if error.reason is Reason.BATCH_TOO_LARGE:
            code = RejectCode.TOO_LARGE
        return Reject(
            line=chunk.lines[row],
            code=code,
            field=error.field,
            message=error.message,
            original=chunk.originals[row],
        )

    def _row_errors(self, datums: Sequence[bytes]) -> dict[int, RowError]:
        if not isinstance(self.engine.check(datums), list):
            return {}
        errors: dict[int, RowError] = {}
        for start in range(0, len(datums), _MAX_REPORTED):
            found = self.engine.check(datums[start : start + _MAX_REPORTED])
            if isinstance(found, list):
                for error in found:
                    errors.setdefault(start + error.index, error)
        return errors
