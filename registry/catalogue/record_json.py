"""JSON documents of catalogue records, as they are stored and answered."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from registry.catalogue.life_cycle import EntryEvent, ProcedureState
from registry.catalogue.metadata import Metadata
from registry.catalogue.record import CatalogueRecord, EntryAct, LegalChange, RetirementNotice
from schemas.names import Topic

__all__ = ["record_document", "record_from_document"]


def record_document(record: CatalogueRecord) -> dict[str, Any]:
    """Return a record as a JSON document."""
    change, notice, act = record.change, record.notice, record.act
    return {
        "topic": str(record.topic),
        "version": record.version,
        "provider": record.provider,
        "code": record.code,
        "state": str(record.state),
        "in_force": record.in_force,
        "metadata": record.metadata.to_document(),
        "described_by": list(record.described_by),
        "signed_by": list(record.signed_by),
        "change": None
        if change is None
        else {"on": change.on.isoformat(), "extended": change.extended, "resubmitted_at": _text(change.resubmitted_at)},
        "notice": None
        if notice is None
        else {
            "at": _text(notice.at),
            "by": notice.by,
            "reason": notice.reason,
            "filing": notice.filing,
            "from_day": notice.from_day.isoformat(),
            "consumers": list(notice.consumers),
        },
        "act": {
            "event": str(act.event),
            "by": act.by,
            "at": _text(act.at),
            "entry": act.entry,
            "reason": act.reason,
            "filing": act.filing,
        },
    }


def record_from_document(document: Mapping[str, Any]) -> CatalogueRecord:
    """Return the record of a document of `record_document`."""
    change, notice, act = document["change"], document["notice"], document["act"]
    return CatalogueRecord(
        topic=Topic.parse(document["topic"]),
        version=document["version"],
        provider=document["provider"],
        code=document["code"],
        state=ProcedureState(document["state"]),
        in_force=document["in_force"],
        metadata=Metadata.from_document(document["metadata"]),
        described_by=tuple(document["described_by"]),
        signed_by=tuple(document["signed_by"]),
        change=None
        if change is None
        else LegalChange(
            on=date.fromisoformat(change["on"]),
            extended=change["extended"],
            resubmitted_at=_moment(change["resubmitted_at"]),
        ),
        notice=None
        if notice is None
        else RetirementNotice(
            at=datetime.fromisoformat(notice["at"]),
            by=notice["by"],
            reason=notice["reason"],
            filing=notice["filing"],
            from_day=date.fromisoformat(notice["from_day"]),
            consumers=tuple(notice["consumers"]),
        ),
        act=EntryAct(
            event=EntryEvent(act["event"]),
            by=act["by"],
            at=datetime.fromisoformat(act["at"]),
            entry=act["entry"],
            reason=act["reason"],
            filing=act["filing"],
        ),
    )


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
