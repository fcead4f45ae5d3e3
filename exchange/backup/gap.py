"""Gap of a restore: what the log's entries say happened that the restored database does not know. Pure.

The entries after the backup are read in order, and what each leaves behind is remembered: the last tag of each row that
carries authority, the last version of each grant, the last batch of each lane, what was released, revoked and erased.
Compared with the restored database, it says which rows are older than the log, and which are lost.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from exchange.audit.log_invariants import makes_version
from schemas.access import Action

__all__ = ["Gap", "GapGrant", "OldRows"]

_CASES = "violation_case"
_OF_ORDERS = frozenset({Action.VIOLATION_ORDER, Action.VIOLATION_ACCEPT, Action.VIOLATION_ESCALATE})
_UTC_8 = 8 * 3600
_EPOCH = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class GapGrant:
    """The last version of a grant that the log knows, and the act that made it."""

    version: int
    action: str


@dataclass(slots=True)
class OldRows:
    """Rows of which the restored database has another state than the log, by table and key.

    Attributes:
        older: there, in the state before a later change; the tags of the log and of the database.
        lost: not there, since they were made after the backup; the tag of the log.
    """

    older: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    lost: dict[tuple[str, str], str] = field(default_factory=dict)


@dataclass(slots=True)
class Gap:
    """What the entries after a backup leave behind.

    Attributes:
        first_at, last_at: microseconds UTC, of the first and the last entry; 0 without any.
        grants: by id. lanes: number of the last batch, by lane. released: records by grant and day of UTC+8.
        revoked: accounts that were revoked.
        erasures: entries that confirm an erasure, by the erasure's id.
        orders: orders of rectification that are open at the end: violation case → grant, empty where it is about none.
        restores: statements of earlier restores.
    """

    first_at: int = 0
    last_at: int = 0
    grants: dict[str, GapGrant] = field(default_factory=dict)
    lanes: dict[str, int] = field(default_factory=dict)
    released: dict[tuple[str, date], int] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    erasures: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    orders: dict[str, str] = field(default_factory=dict)
    _rows: dict[tuple[str, str], str] = field(default_factory=dict)

    def read(self, entry: Mapping[str, Any], *, known: bool) -> None:
        """Take one entry, in the log's order; *known*: the database has it, and what it did."""
        at, data = entry["at"], entry.get("data", {})
        self.first_at = self.first_at or at
        self.last_at = at
        if entry["decision"] != "allow" or "failed" in data:
            return
        for table, key, _, after in data.get("rows", ()):
            self._rows[table, key] = after
        action = entry["action"]
        if action == Action.PUBLISH:
            self.lanes[data["lane"]] = max(self.lanes.get(data["lane"], 0), data["sequence"])
        elif action == Action.FETCH:
            if not known:
                self._count_release(entry["grant"]["id"], at, data["count"])
        elif action == Action.USER_REVOKE:
            self.revoked.add(data["account"])
        elif action == Action.ERASURE_CONFIRM:
            self.erasures[data["erasure"]] = entry
        elif action in _OF_ORDERS:
            self._read_order(action, data)
        elif "grant" in entry and makes_version(action):  # a read names a version, too
            grant = entry["grant"]
            self.grants[grant["id"]] = GapGrant(grant["version"], action)

    def _count_release(self, grant: str, at: int, count: int) -> None:
        day = date.fromordinal(_EPOCH + (at // 1_000_000 + _UTC_8) // 86_400)
        self.released[grant, day] = self.released.get((grant, day), 0) + count

    def _read_order(self, action: str, data: Mapping[str, Any]) -> None:
        self.orders.pop(data["case"], None)
        if action == Action.VIOLATION_ORDER:
            self.orders[data["case"]] = data.get("grant", "")

    def compare(self, stored: Mapping[tuple[str, str], str]) -> OldRows:
        """Return the rows that the database has in another state than the log; *stored*: its tags, by table and key."""
        found = OldRows()
        for row, tag in self._rows.items():
            now = stored.get(row)
            if now is None:
                if tag:
                    found.lost[row] = tag
            elif now != tag:
                found.older[row] = (tag, now)
        return found

    def lost_orders(self, old: OldRows) -> dict[str, str]:
        """Return the open orders that the database does not know: violation case → grant."""
        rows = {*old.older, *old.lost}
        return {case: grant for case, grant in sorted(self.orders.items()) if (_CASES, json.dumps([case])) in rows}
