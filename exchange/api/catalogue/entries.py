"""Control API of the catalogue's procedure: full metadata, reviews, updates, suspension, retirement."""

from collections.abc import Sequence
from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from exchange.api.bodies.base import Body, ReasonBody
from exchange.api.caller import After, Caller, Document, Limit, listed, refuse_unknown, topic_key, version_key
from exchange.control.catalogue.entries import EntryStep, ShownRecord
from registry.catalogue.life_cycle import EntryEvent, ProcedureState
from registry.catalogue.metadata import DataItem, Metadata
from registry.catalogue.metadata_rules import Fault
from registry.catalogue.record_json import record_document
from registry.database.keyset import MAX_PAGE
from schemas.names import Topic
from schemas.reason_texts import Language

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["catalogue"], dependencies=[Depends(refuse_unknown)])


class ItemBody(Body):
    """A data item (数据项)."""

    name: str = ""
    name_en: str = ""
    type: str = Field("", description="id, code or name of the list `item_types`")
    length: int | None = None
    element: str = Field("", description="code of the data element (数据元)")
    source: bool = Field(default=False, description="the entry is the element's source (数源)")


class MetadataBody(Body):
    """Metadata of an entry (decree 809, Art. 13); terms by id, code, Chinese or English name."""

    title: str = ""
    title_en: str = ""
    abstract: str = ""
    abstract_en: str = ""
    class_code: str = ""
    code: str = Field("", description="resource code; assigned where it is left out")
    theme: str = ""
    format: str = ""
    items: list[ItemBody] = Field(default_factory=list)
    share_type: str = ""
    share_modes: list[str] = Field(default_factory=list)
    share_scope: str = ""
    use_purpose: str = ""
    refuse_reason: str = ""
    legal_basis: str = ""
    open_type: str = ""
    open_conditions: str = ""
    update_cycle: str = ""
    contact_name: str = ""
    contact_phone: str = ""
    contact_email: str = ""
    level: str = ""
    secrecy: str = "none"
    pia_id: str = ""
    secrecy_assessment_id: str = ""
    related_codes: list[str] = Field(default_factory=list)

    def to_metadata(self) -> Metadata:
        """Return it as the catalogue has it."""
        texts = self.model_dump(exclude={"items", "share_modes", "related_codes"})
        return Metadata(
            **texts,
            items=tuple(DataItem(**item.model_dump()) for item in self.items),
            share_modes=tuple(self.share_modes),
            related_codes=tuple(self.related_codes),
        )


class InventoryRowBody(Body):
    """A row of an inventory."""

    row: int = Field(ge=1, le=1 << 20, description="its number in the file")
    cells: list[str] = Field(max_length=100)


class InventoryBody(Body):
    """Rows of an inventory, 100 at most."""

    columns: list[str] = Field(
        max_length=100, description="the header: names of elements in Chinese or English, or ids"
    )
    rows: list[InventoryRowBody] = Field(max_length=100)


class ChangeBody(Body):
    """A change of law or duty for which an entry is updated (Art. 17)."""

    changed_on: date = Field(description="its date, from which the time runs")
    reason: str


class FilingBody(Body):
    """Why, and the number under which it was negotiated and filed (Art. 27)."""

    reason: str
    filing: str


class AnnouncementBody(FilingBody):
    """The end of a resource, announced (Art. 27)."""

    from_day: date = Field(description="day from which it is not provided any more")


@router.post("/catalogue/check")
def check(who: Caller, body: MetadataBody) -> Document:
    """Check metadata as its review would: every fault, element by element; nothing is stored."""
    return {"faults": _faults(who.pool.catalogue.check(who.actor, who.call, body.to_metadata()))}


@router.post("/catalogue/inventory")
def import_inventory(who: Caller, body: InventoryBody) -> Document:
    """Draft the rows of an inventory (盘点) that have no fault; of the others, every gap by row and column."""
    rows = [(one.row, one.cells) for one in body.rows]
    imported = who.pool.catalogue.import_inventory(who.actor, who.call, body.columns, rows)
    drafts = [
        {"row": row, "topic": str(record.topic), "code": record.code, "version": record.version}
        for row, record in imported.drafts
    ]
    gaps = [
        {"row": gap.row, "column": gap.column, "heading": gap.heading, **fault}
        for gap, fault in zip(imported.gaps, _faults([gap.fault for gap in imported.gaps]), strict=True)
    ]
    return {"drafts": drafts, "unchanged": list(imported.unchanged), "gaps": gaps}


@router.get("/catalogue/records", response_model=list[Document])
def records(
    request: Request,
    who: Caller,
    state: Annotated[ProcedureState | None, Query(description="in the procedure")] = None,
    after: After = "",
    limit: Limit = MAX_PAGE,
) -> Response:
    """List entries with full metadata, by topic: of the caller's department, or of all for the pool's own roles.

    `due`, `due_on`: how near the end of the time is in which an entry is updated, or the update reviewed.
    """
    found = who.pool.catalogue.records(who.actor, who.call, state=state, after=topic_key(after), limit=limit)
    return listed(request, found, limit, document=_shown, key=lambda one: str(one.record.topic))


@router.get("/catalogue/records/{topic}")
def record(who: Caller, topic: str) -> Document:
    """Return an entry's metadata, its state, and what it lacks for a review; to others, what is in force."""
    shown = who.pool.catalogue.record(who.actor, who.call, Topic.parse(topic))
    return {**_shown(shown), "faults": _faults(shown.faults)}


@router.get("/catalogue/records/{topic}/versions", response_model=list[Document])
def versions(request: Request, who: Caller, topic: str, after: After = "", limit: Limit = MAX_PAGE) -> Response:
    """List the versions of an entry's metadata, each with the act that made it, oldest first."""
    found = who.pool.catalogue.versions(who.actor, who.call, Topic.parse(topic), after=version_key(after), limit=limit)
    return listed(request, found, limit, document=record_document, key=lambda one: str(one.version))


@router.get("/catalogue/notices", response_model=list[Document])
def notices(request: Request, who: Caller, after: After = "", limit: Limit = MAX_PAGE) -> Response:
    """List the entries that end or are suspended, of which the caller's department has a grant in force."""
    found = who.pool.catalogue.notices(who.actor, who.call, after=topic_key(after), limit=limit)
    return listed(request, found, limit, document=record_document, key=lambda one: str(one.topic))


@router.post("/catalogue/{topic}/metadata", status_code=201)
def describe(who: Caller, topic: str, body: MetadataBody) -> Document:
    """Draft an entry with full metadata, or replace that of a draft or an update."""
    return record_document(who.pool.catalogue.describe(who.actor, who.call, Topic.parse(topic), body.to_metadata()))


@router.post("/catalogue/{topic}/submission")
def submit(who: Caller, topic: str) -> Document:
    """Send a draft to its department's review; an update to the authority's."""
    return _apply(who, topic, EntryEvent.SUBMIT, EntryStep())


@router.post("/catalogue/{topic}/approval")
def approve(who: Caller, topic: str) -> Document:
    """Consent as the head of the department's sharing office; the authority's review follows."""
    return _apply(who, topic, EntryEvent.APPROVE, EntryStep())


@router.post("/catalogue/{topic}/return")
def return_(who: Caller, topic: str, body: ReasonBody) -> Document:
    """Return an entry from a review to its draft."""
    return _apply(who, topic, EntryEvent.RETURN, EntryStep(reason=body.reason))


@router.post("/catalogue/{topic}/change")
def change(who: Caller, topic: str, body: ChangeBody) -> Document:
    """Begin the update of a published entry; what was published stays in force."""
    return _apply(who, topic, EntryEvent.CHANGE, EntryStep(reason=body.reason, changed_on=body.changed_on))


@router.post("/catalogue/{topic}/extension")
def extend(who: Caller, topic: str, body: ReasonBody) -> Document:
    """Consent, as the authority, to more time for an update; once."""
    return _apply(who, topic, EntryEvent.EXTEND, EntryStep(reason=body.reason))


@router.post("/catalogue/{topic}/suspension")
def suspend(who: Caller, topic: str, body: FilingBody) -> Document:
    """Suspend a published entry: nothing is published or drawn until it is resumed."""
    return _apply(who, topic, EntryEvent.SUSPEND, EntryStep(reason=body.reason, filing=body.filing))


@router.post("/catalogue/{topic}/resumption")
def resume(who: Caller, topic: str, body: ReasonBody) -> Document:
    """Resume a suspended entry."""
    return _apply(who, topic, EntryEvent.RESUME, EntryStep(reason=body.reason))


@router.post("/catalogue/{topic}/announcement")
def announce(who: Caller, topic: str, body: AnnouncementBody) -> Document:
    """Announce that a resource ends; the departments that have a grant of it are told."""
    return _apply(
        who,
        topic,
        EntryEvent.ANNOUNCE,
        EntryStep(reason=body.reason, filing=body.filing, from_day=body.from_day),
    )


@router.post("/catalogue/{topic}/retirement")
def retire(who: Caller, topic: str, body: ReasonBody) -> Document:
    """Retire an entry whose end was announced: nothing is published or drawn any more."""
    return _apply(who, topic, EntryEvent.RETIRE, EntryStep(reason=body.reason))


@router.post("/catalogue/{topic}/withdrawal")
def withdraw(who: Caller, topic: str) -> Document:
    """Withdraw a draft that was never in force."""
    return _apply(who, topic, EntryEvent.WITHDRAW, EntryStep())


def _apply(who: Caller, topic: str, event: EntryEvent, given: EntryStep) -> Document:
    return record_document(who.pool.catalogue.apply(who.actor, who.call, Topic.parse(topic), event, given))


def _shown(shown: ShownRecord) -> Document:
    due = shown.due
    return {
        **record_document(shown.record),
        "due_on": None if due is None else due.day.isoformat(),
        "due_confirmed": None if due is None else not due.provisional,
        "due": None if shown.due_state is None else str(shown.due_state),
    }


def _faults(faults: Sequence[Fault]) -> list[Document]:
    return [
        {
            "element": fault.element,
            "code": str(fault.code),
            "clause": fault.clause,
            "en": fault.text(Language.ENGLISH),
            "zh": fault.text(Language.CHINESE),
        }
        for fault in faults
    ]
