"""Stored claims opened for the fold, and conflicts as the difference to those that stand. Shared by step and replay."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from exchange.hub.drawing.golden_codec import RecordCodec
from exchange.hub.drawing.refold import Refolded
from exchange.hub.fold.claim import Claim
from exchange.hub.fold.identity import Link, bucket_of
from exchange.hub.store.model import ConflictRow, SealedClaim
from exchange.hub.store.sealing import Keyring, open_claim, readable
from exchange.hub.store.store import HubStore
from registry.database.unit_of_work import Reader

__all__ = ["conflict_changes", "open_claims"]


def open_claims(codec: RecordCodec, rows: Sequence[SealedClaim], ring: Keyring) -> list[Claim]:
    """Return stored claims for the fold; those of erased subjects without links and values.

    Raises:
        CorruptError: ROW_FORGED, a row is not one that the hub wrote.
        InvalidError: RECORD_INVALID, a value cannot be decoded.
    """
    links: list[tuple[Link, ...]] = []
    framed: list[bytes] = []
    for row in rows:
        key = ring.of(row.handle)
        stated, value = ((), b"") if key is None else open_claim(row, key)
        links.append(stated)
        framed.append(value)
    values = codec.decode(framed)
    return [readable(row, link, fields) for row, link, fields in zip(rows, links, values, strict=True)]


def conflict_changes(
    store: HubStore, reader: Reader, library: str, refolded: Refolded, applied: Mapping[int, int]
) -> list[ConflictRow]:
    """Return the conflicts that are opened and those that are closed, as a difference to what stands."""
    standing = {
        (one.handle, one.field, one.winner, one.loser): one
        for one in store.open_conflicts(reader, refolded.conflicts)
        if one.library == library
    }
    rows: list[ConflictRow] = []
    found = set()
    for handle, pairs in refolded.conflicts.items():
        for pair in pairs:
            found.add((handle, *pair))
            if (handle, *pair) not in standing:
                rows.append(
                    ConflictRow(
                        handle=handle, library=library, field=pair.field, winner=pair.winner, loser=pair.loser,
                        opened=applied[bucket_of(handle)],
                    )
                )  # fmt: skip
    closed = [replace(one, closed=applied[bucket_of(one.handle)]) for key, one in standing.items() if key not in found]
    return rows + closed
