"""What a whole log must say besides being whole: the rules that its entries keep among each other. Pure.

    counter.gap, counter.repeat      every counting line counts 1, 2, 3 …: an entry left out leaves a hole
    publish.gap, publish.repeat      every lane's batches are 1, 2, 3 …, each with one entry
    fetch.gap                        a release begins where the grant's last one ended, or before
    fetch.after-revocation           nothing is released after a grant's suspension or end, until it resumes
    grant.unknown                    a release names a grant version that an entry made
    grant.hash                       … and its hash is the one in that entry
    grant.rewritten                  no version is made twice with different content
    entry.pool                       all entries are of one pool
    entry.form                       every leaf is an entry that this version can read

Memory grows with counting lines, lanes and grant versions, not with entries.
"""

from collections.abc import Callable, Mapping
from typing import Any

from schemas.access import Action
from schemas.audit import Decision, read_leaf
from schemas.errors import InvalidError

__all__ = ["LogInvariants", "Tell", "makes_version"]

Tell = Callable[[str, int | None, str], None]
"""Takes a finding: its kind, the index of the entry (None for the log as a whole), and what is wrong."""

_MAKES_VERSION = frozenset(
    {
        Action.GRANT_SUBMIT,
        Action.GRANT_APPROVE,
        Action.GRANT_PROVISION,
        Action.GRANT_REJECT,
        Action.GRANT_SUSPEND,
        Action.GRANT_RESUME,
        Action.GRANT_TERMINATE,
        Action.GRANT_EXPIRE,
    }
)
_ENDS = frozenset({Action.GRANT_REJECT, Action.GRANT_SUSPEND, Action.GRANT_TERMINATE, Action.GRANT_EXPIRE})


def makes_version(action: str) -> bool:
    """Return whether an act of this kind makes a grant version, whose hash its entry names."""
    return action in _MAKES_VERSION


class LogInvariants:
    """Takes the leaves of a log in order and tells what they break."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._pool: str | None = None
        self._blind = 0  # how often entries could not be read; what spans such a stretch is not judged
        self._counters: dict[str, tuple[int, int]] = {}  # last number, and how often blind by then
        self._lanes: dict[str, tuple[int, set[int]]] = {}  # batches 1 to n are there, and these beyond
        self._hashes: dict[tuple[str, int], str] = {}
        self._newest: dict[str, int] = {}
        self._ended: dict[str, int] = {}
        self._reached: dict[tuple[str, int], tuple[list[int], int]] = {}  # per grant and generation: positions after

    def take(self, index: int, leaf: bytes) -> None:
        """Look at the leaf of this index."""
        try:
            entry = read_leaf(leaf)
            self._count(index, entry)
            if entry["decision"] == Decision.ALLOW and "failed" not in entry.get("data", {}):
                self._allowed(index, entry)
        except (InvalidError, KeyError, TypeError, ValueError, AttributeError) as error:
            what = str(error) if isinstance(error, InvalidError) else f"a field is missing or of another type: {error}"
            self._tell("entry.form", index, what)

    def blind(self) -> None:
        """Learn that some entries cannot be read here: a gap across them is told as what it is, and once."""
        self._blind += 1

    def end(self) -> None:
        """Return what is still open at the end of the log."""
        if self._blind:
            return
        for lane, (reached, beyond) in self._lanes.items():
            if beyond:
                missing = sorted(set(range(reached + 1, max(beyond))) - beyond)
                self._tell(
                    "publish.gap",
                    None,
                    f"lane {lane}: batches up to {max(beyond)} have entries, {_some(missing)} have none (the sweeper "
                    "writes what a gateway that died left out, within seconds)",
                )

    def made(self, grant_id: str, version: int) -> str | None:
        """Return the hash that the log gives for a grant's version; None when no entry made it."""
        return self._hashes.get((grant_id, version))

    def newest(self, grant_id: str) -> int | None:
        """Return the highest version of a grant that an entry made."""
        return self._newest.get(grant_id)

    def _count(self, index: int, entry: Mapping[str, Any]) -> None:
        pool, line, counter = entry["pool"], entry["gateway"], entry["counter"]
        if self._pool is None:
            self._pool = pool
        elif pool != self._pool:
            self._tell("entry.pool", index, f"the entry is of pool {pool!r}, the log of {self._pool!r}")
        last, blind = self._counters.get(line, (0, 0))
        if counter <= last:
            self._tell("counter.repeat", index, f"{line} counts {counter} after {last}")
        elif counter > last + 1 and blind == self._blind:
            self._tell(
                "counter.gap",
                index,
                f"{line} counts {counter} after {last}: {counter - last - 1} of its entries were left out before this "
                "one",
            )
        self._counters[line] = max(last, counter), self._blind

    def _allowed(self, index: int, entry: Mapping[str, Any]) -> None:
        action = entry["action"]
        if action == Action.FETCH:
            self._fetch(index, entry["grant"], entry["data"])
        elif action == Action.PUBLISH:
            self._publish(index, entry["data"])
        elif makes_version(action) and "grant" in entry:
            self._grant(index, action, entry["grant"])

    def _publish(self, index: int, data: Mapping[str, Any]) -> None:
        lane, sequence = data["lane"], data["sequence"]
        reached, beyond = self._lanes.get(lane, (0, set()))
        if sequence <= reached or sequence in beyond:
            self._tell("publish.repeat", index, f"lane {lane}: batch {sequence} has an entry already")
            return
        beyond.add(sequence)
        while reached + 1 in beyond:
            reached += 1
            beyond.remove(reached)
        self._lanes[lane] = (reached, beyond)

    def _grant(self, index: int, action: str, grant: Mapping[str, Any]) -> None:
        grant_id, version, digest = grant["id"], grant["version"], grant["hash"]
        known = self._hashes.setdefault((grant_id, version), digest)
        if known != digest:
            self._tell("grant.rewritten", index, f"grant {grant_id} version {version} is made again with another hash")
        self._newest[grant_id] = max(version, self._newest.get(grant_id, 0))
        if action in _ENDS:
            self._ended[grant_id] = index
        else:
            self._ended.pop(grant_id, None)

    def _fetch(self, index: int, grant: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        grant_id, version, digest = grant["id"], grant["version"], grant["hash"]
        known = self._hashes.get((grant_id, version))
        if known is None:
            self._tell(
                "grant.unknown", index, f"a release under grant {grant_id} version {version}, which no entry made"
            )
        elif known not in (None, digest):
            self._tell(
                "grant.hash",
                index,
                f"a release under grant {grant_id} version {version} with another hash than the entry that made it",
            )
        if grant_id in self._ended:
            self._tell(
                "fetch.after-revocation",
                index,
                f"a release under grant {grant_id}, ended by entry {self._ended[grant_id]}",
            )
        place = (grant_id, data["generation"])
        start, end = data["from"], data["to"]
        reached, blind = self._reached.get(place, ([0] * len(end), -1))
        if blind == self._blind and not data.get("gap"):
            holes = [p for p, (a, b) in enumerate(zip(start, reached, strict=True)) if a > b]
            if holes:
                self._tell(
                    "fetch.gap",
                    index,
                    f"grant {grant_id}: partition {holes[0]} begins at {start[holes[0]]}, the release before ended at "
                    f"{reached[holes[0]]}: a release was left out",
                )
        self._reached[place] = list(map(max, reached, end)), self._blind


def _some(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:5]))
    return shown if len(numbers) <= 5 else f"{shown} and {len(numbers) - 5} more"
