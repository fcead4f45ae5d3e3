"""Catalogue record: an entry's full metadata, where it stands in its procedure, and who signed. Pure values."""

from dataclasses import dataclass
from datetime import date, datetime

from registry.catalogue.life_cycle import EntryEvent, ProcedureState
from registry.catalogue.metadata import Metadata
from schemas.names import Topic

__all__ = ["CatalogueRecord", "EntryAct", "LegalChange", "RetirementNotice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryAct:
    """The act that made a version of a record.

    Attributes:
        event: what happened. by: account. at: aware. entry: id of its audit entry.
        reason, filing: as given; empty where the event needs none.
    """

    event: EntryEvent
    by: str
    at: datetime
    entry: str
    reason: str = ""
    filing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LegalChange:
    """A change of law or duty for which an entry is updated (decree 809, Art. 17).

    Attributes:
        on: its date, the start of the clock.
        extended: the authority consented to more time.
        resubmitted_at: when the update went to the authority, the start of its own clock; None = not yet.
    """

    on: date
    extended: bool = False
    resubmitted_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetirementNotice:
    """The announcement that an entry will be retired (Art. 27).

    Attributes:
        at, by, reason, filing: of the announcement.
        from_day: day from which the resource will not be provided any more.
        consumers: ids of the departments that were told: those with a grant in force.
    """

    at: datetime
    by: str
    reason: str
    filing: str
    from_day: date
    consumers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueRecord:
    """One version of a record.

    Attributes:
        topic: of the entry. version: 1, 2, 3 …
        provider: id of the department.
        code: resource code, assigned.
        state: in its procedure.
        metadata: of this version; of what is in force, that of the version `in_force`.
        in_force: version that was last published; 0 = none yet.
        described_by: accounts that wrote metadata since the last publication.
        signed_by: accounts that submitted, approved or announced since then, and since a review returned it.
        change: for which it is updated; None = for none.
        notice: of retirement; None = none.
        act: that made this version.
    """

    topic: Topic
    version: int = 1
    provider: str
    code: str
    state: ProcedureState
    metadata: Metadata
    in_force: int = 0
    described_by: tuple[str, ...] = ()
    signed_by: tuple[str, ...] = ()
    change: LegalChange | None = None
    notice: RetirementNotice | None = None
    act: EntryAct
