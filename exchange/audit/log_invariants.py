"""Log invariants: the rules that the entries of a complete log keep among each other. Pure.

    counter.gap, counter.repeat      every gapless sequence is 1, 2, 3 …: an entry left out leaves a hole
    publish.gap, publish.repeat      every lane's batches are 1, 2, 3 …, each with one entry
    fetch.gap                        a release begins where the grant's last one ended, or before
    fetch.after-revocation           nothing is released after a grant's suspension or end, until it resumes
    grant.unknown                    a release names a grant version that an entry made
    grant.hash                       … and its hash is the one in that entry
    grant.rewritten                  no version is made twice with different content
    row.chain                        a tagged row is changed from the state in which the entry before left it
    entry.pool                       all entries are of one pool
    entry.form                       every leaf is an entry that this version can read

Memory grows with gapless sequences, lanes, grant versions and tagged rows, not with entries.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from exchange.audit.row_notes import RowNotes
from schemas.access import Action
from schemas.audit import RESTORED, Decision, read_leaf
from schemas.errors import InvalidError

__all__ = ["LogInvariants", "ReportFinding", "makes_version"]

ReportFinding: TypeAlias = Callable[[str, int | None, str], None]
"""Takes a finding: its kind, the index of the entry (None for the log as a whole), and what is wrong."""

_MAKES_VERSION = frozenset(
    {
        Action.GRANT_SUBMIT,
        Action.GRANT_CONFIRM,
        Action.GRANT_APPROVE,
        Action.GRANT_PROVISION,
        Action.GRANT_REJECT,
        Action.GRANT_SUSPEND,
        Action.GRANT_RESUME,
        Action.GRANT_TERMINATE,
        Action.GRANT_EXPIRE,
        Action.GRANT_REMIND,
        Action.GRANT_SUSPEND_UNMASKED,
        Action.GRANT_SUPERSEDE,
        Action.GRANT_SUCCEED,
        Action.GRANT_COUNTERSIGN,
        Action.GRANT_WITHDRAW_SIGNATURE,
        Action.GRANT_CONCLUDE,
        Action.GRANT_COMPLETE,
        Action.GRANT_CHANGE_SERVICE,
        Action.GRANT_END_BY_AGREEMENT,
        Action.REQUEST_NEED_MORE,
        Action.REQUEST_RESUBMIT,
        Action.REQUEST_LAPSE,
        Action.REQUEST_WITHDRAW,
        Action.REQUEST_EXTEND,
        Action.REQUEST_OVERDUE,
        Action.REQUEST_DISPUTE,
        Action.REQUEST_UPHOLD,
        Action.REQUEST_OVERTURN,
    }
)
_ENDS = frozenset(
    {
        Action.GRANT_REJECT,
        Action.GRANT_SUSPEND,
        Action.GRANT_SUSPEND_UNMASKED,
        Action.GRANT_TERMINATE,
        Action.GRANT_EXPIRE,
        Action.GRANT_SUPERSEDE,
        Action.GRANT_COMPLETE,
        Action.GRANT_END_BY_AGREEMENT,
        Action.GRANT_COUNTERSIGN,  # and every other state in which nothing is granted
        Action.REQUEST_NEED_MORE,
        Action.REQUEST_LAPSE,
        Action.REQUEST_WITHDRAW,
        Action.REQUEST_DISPUTE,
        Action.REQUEST_UPHOLD,
        Action.REQUEST_OVERTURN,
    }
)

_UTC_8 = 8 * 3600  # seconds: a quota's day is that of Asia/Shanghai
_NEAR = 300  # seconds from midnight


def makes_version(action: str) -> bool:
    """Return whether an act of this kind makes a grant version, whose hash its entry names."""
    return action in _MAKES_VERSION


class LogInvariants:
    """Checks the leaves of a log in order and reports each invariant that they break.

    Attributes:
        rows: what the entries say about tagged rows, for a comparison with the database.
        restores: a sentence for each restore of the pool; no finding, and never to be overlooked.
    """

    def __init__(self, report: ReportFinding) -> None:
        self.rows = RowNotes()
        self.restores: list[str] = []
        self._report = report
        self._pool: str | None = None
        self._unreadable = 0  # entries that could not be read; a gap across them proves nothing and is not reported
        self._counters: dict[str, tuple[int, int]] = {}  # by sequence: last number, and `_unreadable` at that time
        self._lanes: dict[str, tuple[int, set[int]]] = {}  # batches 1 to n are there, and these beyond
        self._hashes: dict[tuple[str, int], str] = {}
        self._latest: dict[str, int] = {}
        self._ended: dict[str, int] = {}
        self._counts: dict[tuple[str, int], int] = {}
        # By grant and generation: the positions after the last release, and `_unreadable` at that time.
        self._streams: dict[str, str] = {}  # grant → the one whose positions it goes on with
        self._released: dict[tuple[str, int], tuple[list[int], int]] = {}

    def check(self, index: int, leaf: bytes) -> None:
        """Check the leaf of this index; call it with rising indexes."""
        try:
            entry = read_leaf(leaf)
            self._check_counter(index, entry)
            if entry["decision"] == Decision.ALLOW and "failed" not in entry.get("data", {}):
                self._check_allowed(index, entry)
        except (InvalidError, KeyError, TypeError, ValueError, AttributeError) as error:
            what = str(error) if isinstance(error, InvalidError) else f"a field is missing or of another type: {error}"
            self._report("entry.form", index, what)

    def mark_unreadable(self) -> None:
        """Mark that an entry cannot be read here: the caller reports that, and no gap across it is reported too."""
        self._unreadable += 1

    def finish(self) -> None:
        """Report what is missing at the end of the log."""
        if self._unreadable:
            return
        for lane, (reached, beyond) in self._lanes.items():
            if beyond:
                missing = sorted(set(range(reached + 1, max(beyond))) - beyond)
                self._report(
                    "publish.gap",
                    None,
                    f"lane {lane}: batches up to {max(beyond)} have entries, {_first_few(missing)} have none (the "
                    "sweeper writes what a gateway that died left out, within seconds)",
                )

    def grant_hash(self, grant_id: str, version: int) -> str | None:
        """Return the hash that the log gives for a grant's version; None when no entry made it."""
        return self._hashes.get((grant_id, version))

    def grant_versions(self) -> Mapping[tuple[str, int], str]:
        """Return the hash of each version of each grant that an entry made."""
        return self._hashes

    def released_by_day(self) -> Mapping[tuple[str, int], int]:
        """Return the records released by grant and day of UTC+8 (days since 1970-01-01), at least so many.

        Releases near midnight are left out: the database's clock, which decides on their day, may differ.
        """
        return self._counts

    def latest_version(self, grant_id: str) -> int | None:
        """Return the highest version of a grant that an entry made."""
        return self._latest.get(grant_id)

    def _check_counter(self, index: int, entry: Mapping[str, Any]) -> None:
        pool, sequence, counter = entry["pool"], entry["gateway"], entry["counter"]
        if self._pool is None:
            self._pool = pool
        elif pool != self._pool:
            self._report("entry.pool", index, f"the entry is of pool {pool!r}, the log of {self._pool!r}")
        last, unreadable = self._counters.get(sequence, (0, 0))
        if counter <= last:
            self._report("counter.repeat", index, f"{sequence} counts {counter} after {last}")
        elif counter > last + 1 and unreadable == self._unreadable:
            self._report(
                "counter.gap",
                index,
                f"{sequence} counts {counter} after {last}: {counter - last - 1} of its entries were left out before "
                "this one",
            )
        self._counters[sequence] = max(last, counter), self._unreadable

    def _check_allowed(self, index: int, entry: Mapping[str, Any]) -> None:
        action = entry["action"]
        for broken in self.rows.read(entry.get("data", {})):
            self._report("row.chain", index, broken)
        if action == Action.FETCH:
            self._check_release(index, entry["grant"], entry["data"])
            day, second = divmod(entry["at"] // 1_000_000 + _UTC_8, 86_400)
            if _NEAR <= second < 86_400 - _NEAR:
                key = entry["grant"]["id"], day
                self._counts[key] = self._counts.get(key, 0) + entry["data"]["count"]
        elif action == Action.PUBLISH:
            self._check_publish(index, entry["data"])
        elif action == RESTORED:
            self._set_back(index, entry["data"])
        elif makes_version(action) and "grant" in entry:
            self._check_grant(index, action, entry["grant"])
            stream = entry.get("data", {}).get("stream")
            if stream is not None:  # a renewal goes on where another grant ended
                self._streams[entry["grant"]["id"]] = stream

    def _set_back(self, index: int, data: Mapping[str, Any]) -> None:
        """Take the statement of a restore: lanes and grants go on from where the backup left them."""
        if "generation" in data:
            what = f"entry {index}: the pool was restored from the backup of {data['backup']}"
            if data["whole"]:
                self.restores.append(f"{what}; its database did not have the entries {data['from']} to {data['to']}")
            else:
                seen = f"; a checkpoint covers {data['checkpoint']}" if "checkpoint" in data else ""
                self.restores.append(f"{what}; the log {data['log']!r} is lost after {data['to']} entries{seen}")
        for lane, has, had in data.get("lanes", ()):
            reached, beyond = self._lanes.get(lane, (0, set()))
            if had != max(beyond, default=reached) and not self._unreadable:
                self._report("publish.gap", index, f"lane {lane}: set back from batch {had}, and had another last one")
            self._lanes[lane] = (has, set())
        for grant_id, has, _ in data.get("grants", ()):
            for version in [known for known in self._hashes if known[0] == grant_id and known[1] > has]:
                del self._hashes[version]
            self._latest[grant_id] = has
            self._ended.pop(grant_id, None)

    def _check_publish(self, index: int, data: Mapping[str, Any]) -> None:
        lane, sequence = data["lane"], data["sequence"]
        reached, beyond = self._lanes.get(lane, (0, set()))
        if sequence <= reached or sequence in beyond:
            self._report("publish.repeat", index, f"lane {lane}: batch {sequence} has an entry already")
            return
        beyond.add(sequence)
        while reached + 1 in beyond:
            reached += 1
            beyond.remove(reached)
        self._lanes[lane] = (reached, beyond)

    def _check_grant(self, index: int, action: str, grant: Mapping[str, Any]) -> None:
        grant_id, version, digest = grant["id"], grant["version"], grant["hash"]
        first = self._hashes.setdefault((grant_id, version), digest)
        if first != digest:
            self._report(
                "grant.rewritten", index, f"grant {grant_id} version {version} is made again with another hash"
            )
        self._latest[grant_id] = max(version, self._latest.get(grant_id, 0))
        if action in _ENDS:
            self._ended[grant_id] = index
        else:
            self._ended.pop(grant_id, None)

    def _check_release(self, index: int, grant: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        grant_id, version, digest = grant["id"], grant["version"], grant["hash"]
        made = self._hashes.get((grant_id, version))
        if made is None:
            self._report(
                "grant.unknown", index, f"a release under grant {grant_id} version {version}, which no entry made"
            )
        elif made != digest:
            self._report(
                "grant.hash",
                index,
                f"a release under grant {grant_id} version {version} with another hash than the entry that made it",
            )
        if grant_id in self._ended:
            self._report(
                "fetch.after-revocation",
                index,
                f"a release under grant {grant_id}, ended by entry {self._ended[grant_id]}",
            )
        key = (self._streams.get(grant_id, grant_id), data["generation"])
        start, end = data["from"], data["to"]
        before, unreadable = self._released.get(key, ([0] * len(end), -1))
        if unreadable == self._unreadable and not data.get("gap"):
            holes = [p for p, (a, b) in enumerate(zip(start, before, strict=True)) if a > b]
            if holes:
                self._report(
                    "fetch.gap",
                    index,
                    f"grant {grant_id}: partition {holes[0]} begins at {start[holes[0]]}, the release before ended at "
                    f"{before[holes[0]]}: a release was left out",
                )
        self._released[key] = list(map(max, before, end)), self._unreadable


def _first_few(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:5]))
    return shown if len(numbers) <= 5 else f"{shown} and {len(numbers) - 5} more"
