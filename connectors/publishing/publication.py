"""Publication: which resource is published from which columns, under which limits, with which fingerprint."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from connectors.mapping.mapping import Column
from schemas.names import Topic

__all__ = ["Limits", "Publication", "Signer"]

Signer = Callable[[bytes], bytes]
"""Bytes → their Ed25519 signature, 64 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a batch, and of what may be quarantined or missing before a publication stops.

    Attributes:
        batch_rows, batch_bytes: of a batch.
        in_flight: unanswered batches.
        quarantine_share: of the rows read (after the first 1,000); more of them quarantined stop the portion.
        delete_share: of the published keys; more of them missing stop the portion before anything is published.
        delete_floor: so few missing keys never stop it, unless none is left.
        accept_deletes: a person has checked that the missing keys are deleted.
        give_up_after: seconds of failing without success.
        backoff: seconds; the maximum of the first delay.
        succeeds: id of the department whose ledger may be taken over, since it has merged; empty = none.
    """

    batch_rows: int = 5_000
    batch_bytes: int = 4 * 1024 * 1024
    in_flight: int = 4
    quarantine_share: float = 0.05
    delete_share: float = 0.02
    delete_floor: int = 10
    accept_deletes: bool = False
    give_up_after: float = 1800.0
    backoff: float = 0.5
    succeeds: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A published resource, and how its columns become records."""

    topic: Topic
    columns: dict[str, Column]
    null_values: tuple[str, ...] = ()
    unknown_columns: str = "stop"
    on_duplicate: str = "quarantine"  # or "last"
    on_delete: str = ""  # "retract", "end" (see `OutboundRecord`), or what fits the resource: see `Lane.open`
    source_format: str = ""  # all else that changes what a row means: encoding, delimiter, header

    def fingerprint(self, semantic_hash: bytes) -> bytes:
        """Return 8 bytes that change when the records made of the same rows may change."""
        # A ledger stores it: another spelling of the same inputs would have every portion read again.
        inputs = {
            "columns": {name: str(column) for name, column in sorted(self.columns.items())},
            "null_values": sorted(self.null_values),
            "on_duplicate": self.on_duplicate,
            "form": self.source_format,
            "contract": semantic_hash.hex(),
        }
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).digest()[:8]
