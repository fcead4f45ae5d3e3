"""Entry view: what a reader sees of an audit entry. One pure function for every interface that returns entries.

    auditor, data authority          the whole entry
    the provider of the resource     the whole entry
    others (the consumer, mostly)    without ranges, which would show how many rows a filter hides. They see count,
                                     root, and the hash of the whole leaf, with which its place in the log is proven

Where something is withheld, the salt is too: with it and the hash, positions could be guessed one by one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from exchange.audit.store import EntryParty, is_about_resource
from schemas.access import Action
from schemas.canonical import Json

__all__ = ["EVERYTHING", "RANGES", "EntryView", "entry_view"]

RANGES: Final = frozenset({"from", "to", "delivered", "withdrawn", "runs"})
"""Fields of `data` that hold positions of records, whatever the action."""

_OF_RECORDS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        Action.FETCH: frozenset(
            {
                "generation",
                "count",
                "withdrawn_count",
                "root",
                "again",
                "gap",
                "failed",
                "folded",
                "since",
                "resources",
                "cases",
                "grants",
                "unnamed",
            }
        ),
        Action.COMMIT: frozenset(
            {"generation", "failed", "folded", "since", "resources", "cases", "grants", "unnamed"}
        ),
    }
)
"""What a consumer sees of the data of its own acts; a field that is not here is withheld, new ones too."""

_KNOWN = frozenset(Action)
EVERYTHING: Final = None
"""The party of a reader who sees all of every entry: an auditor, the data authority."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryView:
    """An entry as a reader sees it; `withheld` names what it lacks, such as `data.from`. Empty = the whole entry."""

    entry: dict[str, Any]
    withheld: tuple[str, ...] = ()


def entry_view(entry: Mapping[str, Any], party: EntryParty | None) -> EntryView:
    """Return what a reader sees of an entry.

    Args:
        entry: a leaf's JSON object (`schemas.audit.read_leaf`).
        party: the reader's department and its resources; EVERYTHING for a reader who sees all.
    """
    if party is EVERYTHING or _is_own(entry, party):
        return EntryView(entry=dict(entry))
    action, data = entry["action"], entry.get("data") or {}
    if action in _OF_RECORDS:
        shown: dict[str, Json] = {name: value for name, value in data.items() if name in _OF_RECORDS[action]}
    elif action in _KNOWN:
        shown = {name: value for name, value in data.items() if name not in RANGES}
    else:
        shown = {}  # an act of a newer version: what its data say is unknown here
    withheld = [f"data.{name}" for name in sorted(data.keys() - shown.keys())]
    if not withheld:
        return EntryView(entry=dict(entry))
    view = {name: value for name, value in entry.items() if name not in {"data", "salt"}}
    if shown:
        view["data"] = shown
    return EntryView(entry=view, withheld=(*withheld, "salt"))


def _is_own(entry: Mapping[str, Any], party: EntryParty) -> bool:
    return is_about_resource(entry["action"]) and entry.get("resource", "") in party.resources
