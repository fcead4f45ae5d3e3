"""Tags of entries: message authentication codes (MAC) by which the sequencer knows the process that wrote an entry.

A row inserted into `audit_entry` with SQL would be signed and proven like any other. So each process registers at its
start, under its role, and each of its entries has a tag over its leaf hash. Both are made with a key of the role that
the database does not hold. The sequencer holds the key of every role that writes entries. It gives no index to an entry
of a process that is not registered, or without a valid tag (`exchange.audit.postgres_log`).

A role's key does not make entries of another role: what the owner of a registry's host can write is entries of registry
processes.
"""

import hmac
import json
from collections.abc import Mapping
from functools import lru_cache

__all__ = ["ENTRY_ROLES", "EntryTags", "id_of", "process_of"]

ENTRY_ROLES = ("gateway", "registry", "sequencer", "operator")
"""Roles that write entries; `operator` is for commands, such as `pool init`."""

_MIN_KEY = 32  # bytes


class EntryTags:
    """Makes the tags of one role, and checks those of the roles whose keys it has. Thread-safe.

    Args:
        keys: by role, at least 32 bytes each, kept outside the database.
        role: of this process; its key is among *keys*.
    """

    def __init__(self, keys: Mapping[str, bytes], role: str) -> None:
        for name, key in keys.items():
            if len(key) < _MIN_KEY:
                raise ValueError(f"got a key of {len(key)} bytes for {name}; expected at least {_MIN_KEY}")
        if role not in keys:
            raise ValueError(f"got no key for the role {role}, which writes entries here")
        self.role = role
        self._keys = dict(keys)

    def registration(self, process: str) -> bytes:
        """Return the tag with which a process of this role is registered, 32 bytes."""
        return self._mac(self.role, b"process", process)

    def tag(self, process: str, leaf_hash: bytes) -> bytes:
        """Return the tag of an entry of a process of this role, 32 bytes."""
        return self._mac(self.role, b"entry", process, leaf_hash)

    def knows(self, role: str) -> bool:
        """Return whether the key of a role is here."""
        return role in self._keys

    def is_registered(self, role: str, process: str, tag: bytes | None) -> bool:
        """Return whether a process was registered by one that has the key of its role."""
        if role not in self._keys or tag is None:
            return False
        return hmac.compare_digest(self._mac(role, b"process", process), bytes(tag))

    def holds(self, role: str, process: str, leaf_hash: bytes, tag: bytes | None) -> bool:
        """Return whether an entry was written by a process of a role."""
        if role not in self._keys or tag is None:
            return False
        return hmac.compare_digest(self._mac(role, b"entry", process, leaf_hash), bytes(tag))

    def _mac(self, role: str, what: bytes, process: str, leaf_hash: bytes = b"") -> bytes:
        # The name of a process has no zero byte, and a leaf hash has one length.
        return hmac.digest(self._keys[role], what + b"\0" + process.encode() + b"\0" + leaf_hash, "sha256")


def process_of(leaf: bytes) -> str:
    """Return the process that an entry names; empty where the bytes are no entry.

    It is text that the database can be asked for: JSON can also state a zero character, and half of a surrogate pair.
    """
    try:
        gateway = json.loads(leaf)["gateway"]
        if not isinstance(gateway, str) or b"\0" in gateway.encode():
            return ""
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return _process(gateway)


def id_of(leaf: bytes) -> str:
    """Return the id that an entry states; empty where the bytes are no entry."""
    try:
        found = json.loads(leaf)["id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return found if isinstance(found, str) else ""


@lru_cache(maxsize=1_024)
def _process(gateway: str) -> str:
    return gateway.rpartition("#")[0]
