"""Lineage (血缘) of a resource: from its source to its consumers, and of its batches from receipt to erasure.

Everything is read from the catalogue, the registry, the grants and the log: nothing is kept for it, so it cannot differ
from what was done. A release is matched with a batch by the positions that both entries name.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from exchange.access.decision.roles import decide_control
from exchange.access.grants.store import AccessStore, GrantQuery
from exchange.audit.search.entry_rows import iso_time
from exchange.audit.store import EntryPlace, EntryQuery, EntryStore
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.catalogue.visibility import viewer_of
from exchange.kpi.store import Drawn, KpiStore
from registry.catalogue.metadata import DataItem
from registry.catalogue.store import RecordStore
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Database, Reader
from registry.directory.catalogue import Catalogue
from registry.directory.departments import Departments
from registry.governance.classification import ClassifiedField
from registry.subjects.lookup import SchemaLookup
from schemas.access import Action, Actor, Grant, GrantState
from schemas.errors import InvalidError, PoolError, Reason
from schemas.names import Topic
from schemas.offsets import unpack_offsets

__all__ = ["BatchPage", "LineageService"]

_NEVER_IN_FORCE: Final = frozenset(
    {GrantState.DRAFT, GrantState.SUBMITTED, GrantState.SUPPLEMENT, GrantState.REJECTED, GrantState.WITHDRAWN}
)
_PAGE: Final = 1_000
_MOST_RELEASES: Final = 5_000  # entries that are looked at for a page of batches


@dataclass(frozen=True, slots=True)
class BatchPage:
    """A page of batches, newest first; `after`: where the next one begins, None at the end."""

    batches: list[dict[str, Any]]
    after: EntryPlace | None


class LineageService:
    """Reads of lineage; each is decided on and recorded.

    Args:
        database: opens readers.
        enforcer: decides and records.
        attributes: of actors.
        catalogue: entries.
        records: their full metadata, which names data elements.
        lookup: versions of schemas.
        access: grants.
        entries: of the log.
        store: how much was released under each grant.
        departments: their names.
    """

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        catalogue: Catalogue,
        records: RecordStore,
        lookup: SchemaLookup,
        access: AccessStore,
        entries: EntryStore,
        store: KpiStore,
        departments: Departments,
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._catalogue = catalogue
        self._records = records
        self._lookup = lookup
        self._access = access
        self._entries = entries
        self._store = store
        self._departments = departments

    def of(self, actor: Actor, call: RequestContext, topic: Topic, field: str = "") -> dict[str, Any]:
        """Return the lineage of a resource as a document; of one field alone, where *field* names it.

        Raises:
            RefusedError: the actor may not read it.
            InvalidError: RESOURCE_UNKNOWN; FIELD_UNKNOWN.
        """
        provider = self._admit(actor, call, topic)
        with self._database.read() as reader:
            entry = self._catalogue.get(reader, topic)
            grants = [*self._grants(reader, topic)]
            drawn = self._store.drawn(reader, [one.id for one in grants])
            fields = self._fields(reader, topic, field)
            names = {one.id: one.short_name or one.name for one in self._departments.all(reader)}
            progress = self._store.progress(reader)
        if field:
            grants = [one for one in grants if field in one.fields]
        shown = [_grant_document(one, names, drawn.get(one.id)) for one in grants]
        for one in fields:
            one["grants"] = [
                {
                    "grant": grant.id,
                    "consumer": grant.consumer,
                    "consumer_name": names.get(grant.consumer, ""),
                    "state": str(grant.state),
                    "mask": str(dict(grant.masks).get(one["name"]) or one["mask"]),
                }
                for grant in grants
                if one["name"] in grant.fields
            ]
        return {
            "resource": str(topic),
            "title": entry.title,
            "code": entry.code,
            "provider": provider,
            "provider_name": names.get(provider, ""),
            "state": str(entry.state),
            "share_type": str(entry.share_type),
            "schemas": self._schemas(topic),
            "lineage": fields,
            "grants": shown,
            "entries": progress.entries,
        }

    def batches(
        self, actor: Actor, call: RequestContext, topic: Topic, *, after: EntryPlace | None, limit: int
    ) -> BatchPage:
        """Return batches of a resource, newest first: who published, when, who drew how many records, what was erased.

        Raises:
            RefusedError: the actor may not read it.
            InvalidError: RESOURCE_UNKNOWN.
        """
        self._admit(actor, call, topic)
        found = self._entries.find(
            EntryQuery(resource=str(topic), action=Action.PUBLISH, decision="allow", after=after, limit=limit)
        )
        batches = [
            (one.index, entry)
            for one in found
            if (entry := one.entry()) is not None and "runs" in entry.get("data", {})
        ]
        if not batches:
            return BatchPage([], found[-1].place if len(found) == limit else None)
        oldest = min(entry["at"] for _, entry in batches)
        releases, complete = self._releases(topic, oldest)
        erasures = [*self._erasures(topic, oldest)]
        documents = [_batch_document(index, entry, releases, complete, erasures) for index, entry in batches]
        named = {drawn["consumer"] for one in documents for drawn in one["drawn"]}
        with self._database.read() as reader:
            names = {one.id: one.short_name or one.name for one in self._departments.some(reader, named)}
        for drawn in (drawn for one in documents for drawn in one["drawn"]):
            drawn["consumer_name"] = names.get(drawn["consumer"], "")
        return BatchPage(documents, found[-1].place if len(found) == limit else None)

    def _admit(self, actor: Actor, call: RequestContext, topic: Topic) -> str:
        with self._database.read() as reader:
            provider = self._catalogue.visible(reader, topic, viewer_of(actor)).provider
        action = Action.REPORT_READ
        decision = decide_control(actor, action, standing=self._attributes.standing(actor), department=provider)
        authorized = self._enforcer.admit(actor, action, str(topic), call, decision)
        self._enforcer.record_read(authorized, {"report": "lineage"})
        return provider

    def _grants(self, reader: Reader, topic: Topic) -> Iterator[Grant]:
        query = GrantQuery(topic=topic, limit=_PAGE)
        while True:
            page = self._access.page(reader, query)
            yield from (one for one in page if not isinstance(one, DamagedRow) and one.state not in _NEVER_IN_FORCE)
            if len(page) < _PAGE:
                return
            last = page[-1]
            query = replace(query, after=last.cursor if isinstance(last, DamagedRow) else last.id)

    def _schemas(self, topic: Topic) -> list[dict[str, Any]]:
        with self._database.read() as reader:
            try:
                versions = self._lookup.stored_versions(reader, topic.subject)
            except InvalidError:
                return []
        return [{"version": one.number, "schema_id": one.schema_id} for one in versions]

    def _fields(self, reader: Reader, topic: Topic, field: str) -> list[dict[str, Any]]:
        items = self._items(reader, topic)
        found: dict[str, dict[str, Any]] = {}
        for number, one in self._versions_of_fields(reader, topic):
            known = found.setdefault(one.path, {"name": one.path, "since_version": number})
            item = items.get(one.path) or items.get(one.zh)
            known |= {
                "zh": one.zh,
                "last_version": number,
                "level": one.level.name,
                "personal": one.personal,
                "mask": one.mask,
                "element": item.element if item is not None else "",
                "element_source": item.source if item is not None else False,
            }
        if not field:
            return [*found.values()]
        if field not in found:
            raise InvalidError(
                Reason.FIELD_UNKNOWN,
                f"got the field {field[:80]!r}; expected one of {', '.join([*found][:20]) or 'none'}",
            )
        return [found[field]]

    def _versions_of_fields(self, reader: Reader, topic: Topic) -> Iterator[tuple[int, ClassifiedField]]:
        try:
            numbers = self._lookup.version_numbers(reader, topic.subject)
        except InvalidError:
            return
        for number in numbers:
            try:
                yield from ((number, one) for one in self._lookup.classification(reader, topic.subject, number))
            except PoolError:
                continue  # a version that nothing can be published under

    def _items(self, reader: Reader, topic: Topic) -> Mapping[str, DataItem]:
        record = self._records.get(reader, topic)
        items = () if record is None else record.metadata.items
        return {name: item for item in items for name in (item.name, item.name_en) if name}

    def _releases(self, topic: Topic, since: int) -> tuple[list[dict[str, Any]], bool]:
        """Return the releases of a resource since a time, newest first, and whether these are all."""
        query = EntryQuery(resource=str(topic), action=Action.FETCH, decision="allow", since=since, limit=_PAGE)
        found: list[dict[str, Any]] = []
        while True:
            page = self._entries.find(query)
            found += [
                entry
                for one in page
                if (entry := one.entry()) is not None and "delivered" in entry.get("data", {}) and entry.get("grant")
            ]
            if len(page) < _PAGE:
                return found, True
            if len(found) >= _MOST_RELEASES:
                return found, False
            query = replace(query, after=page[-1].place)

    def _erasures(self, topic: Topic, since: int) -> Iterator[dict[str, Any]]:
        """Yield the erasures of a resource that were confirmed since a time, with what was destroyed so far."""
        done: dict[str, Any] = {}
        for action in (Action.ERASURE_COMPLETE, Action.ERASURE_CONFIRM):
            query = EntryQuery(resource=str(topic), action=action, decision="allow", since=since, limit=_PAGE)
            for one in self._entries.find(query):
                entry = one.entry()
                data = {} if entry is None else entry.get("data", {})
                if entry is None or "failed" in data:
                    continue
                if action is Action.ERASURE_COMPLETE:
                    done[data.get("erasure", "")] = data.get("destroyed")
                elif "before" in data:
                    yield {
                        "erasure": data["erasure"],
                        "entry": entry["id"],
                        "at": entry["at"],
                        "partition": data["partition"],
                        "before": data["before"],
                        "destroyed": done.get(data["erasure"]),
                    }


def _grant_document(grant: Grant, names: Mapping[str, str], drawn: Drawn | None) -> dict[str, Any]:
    return {
        "grant": grant.id,
        "consumer": grant.consumer,
        "consumer_name": names.get(grant.consumer, ""),
        "state": str(grant.state),
        "purpose": grant.purpose,
        "fields": list(grant.fields),
        "masks": {name: str(rule) for name, rule in grant.masks},
        "releases": 0 if drawn is None else drawn.releases,
        "records": 0 if drawn is None else drawn.records,
        "first": None if drawn is None else iso_time(drawn.first),
        "last": None if drawn is None else iso_time(drawn.last),
    }


def _batch_document(
    index: int | None,
    entry: Mapping[str, Any],
    releases: Sequence[Mapping[str, Any]],
    complete: bool,
    erasures: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    data = entry["data"]
    runs = [(int(partition), int(first), int(last)) for partition, first, last in data["runs"]]
    drawn: dict[str, dict[str, Any]] = {}
    for release in releases:
        count = _in_runs(release["data"], runs)
        if count:
            grant = release["grant"]["id"]
            # Newest first, so that the first release of a grant is written last.
            drawn[grant] = {
                "grant": grant,
                "consumer": (release.get("actor") or {}).get("department", ""),
                "records": count + drawn.get(grant, {}).get("records", 0),
                "first_entry": release["id"],
                "first_at": iso_time(release["at"]),
            }
    return {
        "entry": entry["id"],
        "index": index,
        "received_at": iso_time(entry["at"]),
        "lane": data["lane"],
        "sequence": data["sequence"],
        "records": data["count"],
        "schema_ids": data.get("schema_ids", []),
        "positions": [list(run) for run in runs],
        "drawn": list(drawn.values()),
        "drawn_complete": complete,
        "erased": [
            {
                "erasure": one["erasure"],
                "entry": one["entry"],
                "at": iso_time(one["at"]),
                "destroyed_in_all": one["destroyed"],
            }
            for one in erasures
            if one["at"] >= entry["at"]
            and any(partition == one["partition"] and first < one["before"] for partition, first, _ in runs)
        ],
    }


def _in_runs(data: Mapping[str, Any], runs: Sequence[tuple[int, int, int]]) -> int:
    """Return how many delivered records of a release are of the runs of a batch."""
    start, end = data["from"], data["to"]
    touched = [
        (partition, first, last)
        for partition, first, last in runs
        if partition < len(end) and start[partition] <= last and end[partition] > first
    ]
    if not touched:
        return 0
    try:
        delivered = unpack_offsets(tuple(start), tuple(end), data["delivered"])
    except InvalidError:
        return 0  # verification reports such an entry
    return sum(
        bisect_left(delivered[partition], last + 1) - bisect_left(delivered[partition], first)
        for partition, first, last in touched
    )
