"""Restores that are not settled, as the database's entries and the file beside the keys say.

The file `secrets/restored.json` names the statement of the newest restore: who removes the statement from the database
opens nothing. A settlement counts only where the entry itself says so, with the tag of a gateway's process, whose key
the database does not hold. The columns of its row only serve to find it.
"""

import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from exchange.audit.entry_tags import EntryTags, process_of
from exchange.authorization.restored import OpenRestore
from exchange.control.restores import RESTORE
from exchange.identity.keyfile import read_private
from registry.database.errors import unavailable
from schemas.access import Action
from schemas.audit import RESTORED, is_done
from schemas.errors import InvalidError, Reason
from schemas.merkle import leaf_hash

__all__ = ["find_open_restore", "restored_file"]

_ROLE = "gateway"  # of the processes that serve the control API
_ENTRIES = sa.text("""
SELECT e.leaf, e.tag, e.action FROM audit_entry AS e
WHERE e.resource = :resource AND e.action IN (:restored, :settled) AND e.decision = 'allow' AND NOT e.refused
ORDER BY e.seq
""")
_PROCESS = sa.text("SELECT role, tag FROM audit_process WHERE process = :process")


def restored_file(folder: Path) -> Path:
    """Return the file that names the newest restore, in a pool's folder."""
    return folder / "secrets" / "restored.json"


def find_open_restore(engine: sa.Engine, tags: EntryTags, folder: Path) -> OpenRestore | None:
    """Return the newest restore that two persons have not settled.

    Raises:
        UnavailableError: the database does not answer.
        InvalidError: CONFIG_INVALID, the file cannot be read.
    """
    stated = [found] if (found := _from_file(restored_file(folder))) is not None else []
    settled: set[str] = set()
    try:
        with engine.connect() as connection:
            values = {"resource": RESTORE, "restored": RESTORED, "settled": str(Action.RESTORE_SETTLE)}
            for row in connection.execute(_ENTRIES, values).all():
                if row.action == RESTORED:
                    entry = json.loads(bytes(row.leaf))
                    if "generation" in (data := entry.get("data", {})):
                        stated.append(OpenRestore(entry["id"], bool(data["whole"])))
                elif _is_ours(connection, tags, row):
                    entry = json.loads(bytes(row.leaf))
                    if is_done(entry, Action.RESTORE_SETTLE):
                        settled.add(entry["data"]["statement"])
    except sa_exc.SQLAlchemyError as error:
        raise unavailable(error) from error
    return next((one for one in reversed(stated) if one.statement not in settled), None)


def _from_file(file: Path) -> OpenRestore | None:
    if not file.exists():
        return None
    try:
        content = json.loads(read_private(file))
        return OpenRestore(str(content["statement"]), bool(content["whole"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidError(Reason.CONFIG_INVALID, f"{file} cannot be read; take it from the restored folder") from error


def _is_ours(connection: sa.Connection, tags: EntryTags, row: Any) -> bool:
    """Return whether a gateway wrote the leaf of a row, as its tag proves."""
    leaf = bytes(row.leaf)
    process = process_of(leaf)
    known = connection.execute(_PROCESS, {"process": process}).one_or_none()
    return (
        known is not None
        and known.role == _ROLE
        and tags.is_registered(_ROLE, process, known.tag)
        and tags.holds(_ROLE, process, leaf_hash(leaf), row.tag)
    )
