"""Sealing of claims and golden records: AEAD with a key per subject and the row's columns as associated data.

    sealed = nonce (12) ‖ AES-256-GCM(data key, plain, associated data = table ‖ every clear column of the row)

So a value that is taken to another row, or whose row was changed by SQL, does not open: a swap of two rows is an
error, never another person's answer. A value without a row's key opens for nobody: erasing the key erases the value.

A claim's plain text is its links, counted, then the record's framed value; a golden record's is its framed value. Voids
are sealed too, without a value, so that nobody without the key can add one.
"""

import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from exchange.hub.fold.claim import Claim
from exchange.hub.fold.identity import Handle, Link
from exchange.hub.store.keys import KEY_SIZE, HubKeys
from exchange.hub.store.model import GoldenRow, ItemRow, SealedClaim, WrappedKey
from schemas.errors import CorruptError, Reason

__all__ = ["Keyring", "claim_context", "golden_context", "item_context", "open_claim", "seal", "seal_claim", "unseal"]

Context: TypeAlias = bytes

_NONCE: Final = 12
_TAG: Final = 16
_LINK: Final = struct.Struct(">16s16sBB")


def seal(data_key: bytes, context: Context, plain: bytes, random: Callable[[int], bytes] = os.urandom) -> bytes:
    """Return a value sealed for its row."""
    nonce = random(_NONCE)
    return nonce + AESGCM(data_key).encrypt(nonce, plain, context)


def unseal(data_key: bytes, context: Context, sealed: bytes) -> bytes:
    """Return what is sealed for a row.

    Raises:
        CorruptError: ROW_FORGED, it was not sealed for this row as it stands.
    """
    try:
        return AESGCM(data_key).decrypt(sealed[:_NONCE], sealed[_NONCE:], context)
    except (InvalidTag, ValueError) as error:
        raise forged(context) from error


def claim_context(row: SealedClaim) -> Context:
    """Return the clear columns of a claim's row as bytes."""
    return _framed(
        "hub_claim", row.handle, *row.position, row.item, row.operation, row.applied, row.recorded_at, row.valid_from,
        row.valid_to, row.schema,
    )  # fmt: skip


def golden_context(row: GoldenRow) -> Context:
    """Return the clear columns of a golden record's row as bytes, its provenance and flags among them."""
    return _framed("hub_golden", row.handle, row.library, row.rules, row.applied, row.flags, row.prov)


def item_context(row: ItemRow) -> Context:
    """Return the clear columns of an item's row as bytes."""
    return _framed("hub_item", row.library, row.item, row.handle, row.rules, row.applied, row.flags, row.prov)


def seal_claim(row: SealedClaim, data_key: bytes, links: Sequence[Link], value: bytes) -> bytes:
    """Return links and framed value of a claim, sealed for its row; what *row* has as sealed does not count."""
    packed = [_LINK.pack(one.left, one.right, one.left_citizen, one.right_citizen) for one in links]
    return seal(data_key, claim_context(row), bytes([len(packed)]) + b"".join(packed) + value)


def open_claim(row: SealedClaim, data_key: bytes) -> tuple[tuple[Link, ...], bytes]:
    """Return links and framed value of a claim's row.

    Raises:
        CorruptError: ROW_FORGED.
    """
    if row.sealed is None:  # only an erased subject has such rows, and it has no key
        raise forged(claim_context(row))
    plain = unseal(data_key, claim_context(row), row.sealed)
    end = 1 + plain[0] * _LINK.size
    links = tuple(
        Link(Handle(left), Handle(right), bool(one), bool(other))
        for left, right, one, other in _LINK.iter_unpack(plain[1:end])
    )
    return links, plain[end:]


@dataclass(frozen=True, slots=True)
class Keyring:
    """Data keys of the subjects of one step, unwrapped once.

    Attributes:
        keys: by handle; None for a subject that was erased.
    """

    keys: Mapping[Handle, bytes | None]

    @classmethod
    def unwrapped(cls, keys: HubKeys, rows: Iterable[WrappedKey]) -> "Keyring":
        """Return the keys of rows.

        Raises:
            InvalidError: CONFIG_INVALID, a KEK is missing.
            CorruptError: ROW_FORGED, a key was not wrapped for its row.
        """
        return cls(
            {row.handle: None if row.wrapped is None else keys.unwrap(row.kek, row.handle, row.wrapped) for row in rows}
        )

    def of(self, handle: Handle) -> bytes | None:
        """Return a subject's key; None where it was erased.

        Raises:
            CorruptError: ROW_FORGED, the subject has no row of a key: nobody erases by deleting it.
        """
        if handle not in self.keys:
            raise CorruptError(
                Reason.ROW_FORGED,
                "a subject with rows has none in hub_key; the pool never deletes one: it was removed by somebody else",
            )
        return self.keys[handle]


def new_key(keys: HubKeys, month: int, handle: Handle, random: Callable[[int], bytes] = os.urandom) -> WrappedKey:
    """Return a data key for a subject, wrapped under a month's KEK."""
    return WrappedKey(handle=handle, wrapped=keys.wrap(month, handle, random(KEY_SIZE)), kek=month)


def readable(row: SealedClaim, links: Sequence[Link], values: Mapping[str, object] | None) -> Claim:
    """Return a stored claim for the fold, with what was opened of it."""
    return Claim(
        handle=row.handle,
        position=row.position,
        item=row.item,
        operation=row.operation,
        applied=row.applied,
        recorded_at=row.recorded_at,
        valid_from=row.valid_from,
        valid_to=row.valid_to,
        values=values,
        links=tuple(links),
    )


def forged(context: Context) -> CorruptError:
    """Return the error of a row that the hub did not write as it stands."""
    table = context[5 : 5 + int.from_bytes(context[1:5])].decode()
    return CorruptError(
        Reason.ROW_FORGED,
        f"a sealed row of {table} is not one that the hub wrote; it is not used until an auditor has looked "
        "(`pool audit verify --database`)",
    )


def _framed(table: str, *columns: bytes | str | int | None) -> Context:
    """Return table and columns as bytes that no other row has: each with a letter for its type, and its length."""
    parts: list[bytes] = []
    for value in (table, *columns):
        if value is None:
            parts.append(b"n")
            continue
        kind = b"s" if isinstance(value, str) else b"b" if isinstance(value, bytes) else b"i"
        content = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else b"%d" % value
        parts.append(kind + len(content).to_bytes(4) + content)
    return b"".join(parts)
