"""Procedure of catalogue entries (目录编制与审核): drafts, two reviews, updates, suspension, retirement.

`registry.catalogue.life_cycle` says what may happen; here it happens, within the caller's transaction. The record is
locked, so that a decision on an older version cannot pass. What a publication puts in force is written into the entry
itself (`registry.directory.catalogue`), which the gateway reads; every version of the record is kept.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone

from registry.catalogue.code_lists import CodeLists, code_lists
from registry.catalogue.element_store import ElementStore
from registry.catalogue.elements import check_source, sources_of
from registry.catalogue.life_cycle import EntryEvent, EntryRule, ProcedureState, rule_of
from registry.catalogue.metadata import Metadata
from registry.catalogue.metadata_rules import Fault, FaultCode, Stage, fault_of, faults_of
from registry.catalogue.record import CatalogueRecord, EntryAct, LegalChange, RetirementNotice
from registry.catalogue.search import SearchIndex
from registry.catalogue.store import RecordStore
from registry.database.unit_of_work import Reader, UnitOfWork
from registry.directory.catalogue import Catalogue
from registry.directory.model import CatalogueEntry, EntryState, ShareType
from registry.governance.classification import ClassifiedField
from registry.governance.two_persons import refuse_second_signature
from schemas.access import Actor, ActorKind, Level, Role
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError
from schemas.names import Topic
from schemas.reason_texts import Language

__all__ = ["Procedure", "Step", "check_metadata"]

_S, _E = ProcedureState, EntryEvent
_SHANGHAI = timezone(timedelta(hours=8), "Asia/Shanghai")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is asked to happen to an entry.

    Attributes:
        event: which.
        actor: who asks; for the providing department, or for the data authority.
        at: aware. entry_id: of the audit entry.
        reason: in words. filing: number under which it was negotiated and filed.
        changed_on: date of the change of law or duty, of CHANGE.
        from_day: day from which the resource ends, of ANNOUNCE.
        consumers: departments with a grant in force, of ANNOUNCE.
        persons: account → staff number, of the actor and of all who signed.
    """

    event: EntryEvent
    actor: Actor
    at: datetime
    entry_id: str
    reason: str = ""
    filing: str = ""
    changed_on: date | None = None
    from_day: date | None = None
    consumers: Sequence[str] = ()
    persons: Mapping[str, str]


class Procedure:
    """Service that carries entries through their procedure.

    Args:
        store: of records.
        catalogue: of entries.
        fields: returns the classification of every field registered under a subject.
        elements: data elements, to which items refer.
        search: gets the metadata that is published.
        lists: code lists.
    """

    def __init__(
        self,
        store: RecordStore,
        catalogue: Catalogue,
        fields: Callable[[Reader, str], list[ClassifiedField]],
        elements: ElementStore,
        search: SearchIndex,
        lists: CodeLists | None = None,
    ) -> None:
        self.store = store
        self._catalogue = catalogue
        self._fields = fields
        self._elements = elements
        self._search = search
        self._lists = lists or code_lists()

    def describe(
        self,
        work: UnitOfWork,
        topic: Topic,
        metadata: Metadata,
        *,
        provider: str,
        actor: Actor,
        at: datetime,
        entry_id: str,
        others: Collection[CatalogueEntry] | None = None,
    ) -> CatalogueRecord:
        """Store metadata: of a new entry, which is drafted with it, or in place of that of a draft or an update.

        An entry that was drafted or published without full metadata gets its first record. *others*: see
        `Catalogue.create`.

        Raises:
            InvalidError: REQUEST_INVALID, with every fault of the metadata in its details; see `Catalogue.create` and
                `Catalogue.change`.
            RefusedError: NOT_PROVIDER, another department provides it.
            ConflictError: TRANSITION_NOT_ALLOWED, it is reviewed, in force or ended.
        """
        metadata = metadata.normalized(self._lists)
        check_metadata(faults_of(metadata, self._lists))
        act = EntryAct(event=_E.DESCRIBE, by=actor.id, at=at, entry=entry_id)
        current = self.store.lock(work, topic)
        if current is None:
            return self._first(work, topic, metadata, provider, act, others)
        _check_provider(current.provider, provider)
        rule = _rule(current, _E.DESCRIBE)
        if metadata.code and metadata.code != current.code:
            raise InvalidError(
                Reason.REQUEST_INVALID, f"got the code {metadata.code}; expected {current.code}: a code never changes"
            )
        if metadata.class_code != current.code.partition("/")[0]:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got the class {metadata.class_code}; expected that of the code {current.code}, which never changes",
            )
        changed = replace(
            current,
            version=current.version + 1,
            state=rule.target,
            metadata=replace(metadata, code=current.code),
            described_by=_with(current.described_by, actor.id),
            act=act,
        )
        if not current.in_force:
            self._catalogue.change(work, _applied(self._catalogue.get(work, topic), changed.metadata))
        self.store.save(work, changed)
        return changed

    def succeed(
        self, work: UnitOfWork, topic: Topic, *, department: str, into: str, act: EntryAct
    ) -> CatalogueRecord | None:
        """Let a record go over to its provider's successor, where it stands in its procedure; None where there is none.

        The elements of which it is the source in force have the successor as their source.
        """
        current = self.store.lock(work, topic)
        if current is None or current.provider != department:
            return None
        moved = replace(current, version=current.version + 1, provider=into, act=act)
        self.store.save(work, moved)
        in_force = self.store.version(work, topic, current.in_force) if current.in_force else None
        if in_force is not None:
            sources = sources_of(in_force.metadata)
            claimed = [
                code for code in sources if any(claim.topic == topic for claim in self._elements.claims(work, code))
            ]
            self._elements.replace_claims(work, topic, into, claimed)
        return moved

    def apply(self, work: UnitOfWork, topic: Topic, step: Step) -> CatalogueRecord:
        """Let an event happen, but `describe`.

        Raises:
            InvalidError: RESOURCE_UNKNOWN; NOT_FOUND, the entry has no full metadata; REQUEST_INVALID, the metadata is
                incomplete, with every fault in its details, or reason, filing or a date is missing.
            RefusedError: ROLE_MISSING, SAME_PERSON or PERSON_UNKNOWN.
            ConflictError: TRANSITION_NOT_ALLOWED.
        """
        current = self._locked(work, topic)
        rule = _rule(current, step.event)
        self._check(work, current, rule, step)
        changed = replace(
            current,
            version=current.version + 1,
            state=rule.target,
            act=EntryAct(
                event=step.event,
                by=step.actor.id,
                at=step.at,
                entry=step.entry_id,
                reason=step.reason,
                filing=step.filing,
            ),
        )
        changed = _AFTER.get(step.event, _unchanged)(changed, step)
        self._carry_out(work, changed, step)
        self.store.save(work, changed)
        return changed

    def open_update(self, work: UnitOfWork, topic: Topic, step: Step) -> CatalogueRecord:
        """Let the first update of a published entry without full metadata begin.

        Raises:
            InvalidError: RESOURCE_UNKNOWN; REQUEST_INVALID, reason or date is missing.
            ConflictError: TRANSITION_NOT_ALLOWED, it is not published.
        """
        entry = self._catalogue.get(work, topic)
        if entry.state is not EntryState.PUBLISHED:
            raise ConflictError(
                Reason.TRANSITION_NOT_ALLOWED, f"the entry {topic} is {entry.state}; only a published one is updated"
            )
        before = CatalogueRecord(
            topic=topic,
            provider=entry.provider,
            code=entry.code,
            state=_S.PUBLISHED,
            metadata=_of_entry(entry),
            in_force=1,
            act=EntryAct(event=step.event, by=step.actor.id, at=step.at, entry=step.entry_id, reason=step.reason),
        )
        rule = _rule(before, _E.CHANGE)
        self._check(work, before, rule, step)
        opened = _changing(replace(before, state=rule.target), step)
        self.store.save(work, opened)
        return opened

    def faults(self, reader: Reader, record: CatalogueRecord) -> list[Fault]:
        """Return what is missing or wrong in a record's metadata for its review."""
        return self.check(reader, record.metadata)

    def check(self, reader: Reader, metadata: Metadata) -> list[Fault]:
        """Return what is missing or wrong in metadata for its review; nothing is stored."""
        metadata = metadata.normalized(self._lists)
        codes = {item.element for item in metadata.items if item.element}
        unknown = {code for code in codes if self._elements.get(reader, code) is None}
        faults = faults_of(metadata, self._lists, Stage.REVIEW)
        return faults + [
            fault_of(f"items[{number}].element", FaultCode.UNKNOWN)
            for number, item in enumerate(metadata.items)
            if item.element in unknown
        ]

    def get(self, reader: Reader, topic: Topic) -> CatalogueRecord:
        """Return the current version.

        Raises:
            InvalidError: RESOURCE_UNKNOWN; NOT_FOUND, the entry has no full metadata.
        """
        record = self.store.get(reader, topic)
        if record is None:
            self._catalogue.get(reader, topic)
            raise _undescribed(topic)
        return record

    def in_force(self, reader: Reader, record: CatalogueRecord) -> CatalogueRecord | None:
        """Return the version that was last published; None = none yet."""
        if record.in_force in {0, record.version}:
            return record if record.in_force else None
        return self.store.version(reader, record.topic, record.in_force)

    def _first(
        self,
        work: UnitOfWork,
        topic: Topic,
        metadata: Metadata,
        provider: str,
        act: EntryAct,
        others: Collection[CatalogueEntry] | None,
    ) -> CatalogueRecord:
        self.store.lock_codes(work)
        entry = self._existing(work, topic)
        if entry is None:
            code = metadata.code or self._catalogue.next_code(work, topic, metadata.class_code, others=others)
            metadata = replace(metadata, code=code)
            entry = self._catalogue.create(work, _new_entry(topic, provider, metadata), others=others)
        else:
            _check_provider(entry.provider, provider)
            if entry.state is not EntryState.DRAFT:
                raise ConflictError(
                    Reason.TRANSITION_NOT_ALLOWED,
                    f"the entry {topic} is {entry.state}; begin its update first (`pool catalogue change`)",
                )
            if metadata.code not in {"", entry.code} or metadata.class_code != entry.code.partition("/")[0]:
                raise InvalidError(Reason.REQUEST_INVALID, f"got another code than {entry.code}; a code never changes")
            metadata = replace(metadata, code=entry.code)
            self._catalogue.change(work, _applied(entry, metadata))
        record = CatalogueRecord(
            topic=topic,
            provider=provider,
            code=metadata.code,
            state=_S.DRAFT,
            metadata=metadata,
            described_by=(act.by,),
            act=act,
        )
        self.store.save(work, record)
        return record

    def _existing(self, work: UnitOfWork, topic: Topic) -> CatalogueEntry | None:
        try:
            return self._catalogue.get(work, topic)
        except InvalidError as error:
            if error.reason is not Reason.RESOURCE_UNKNOWN:
                raise
            return None

    def _locked(self, work: UnitOfWork, topic: Topic) -> CatalogueRecord:
        record = self.store.lock(work, topic)
        if record is None:
            self._catalogue.get(work, topic)
            raise _undescribed(topic)
        return record

    def _check(self, work: UnitOfWork, current: CatalogueRecord, rule: EntryRule, step: Step) -> None:
        actor = step.actor
        if actor.role not in rule.roles or (rule.person and actor.kind is not ActorKind.HUMAN):
            raise RefusedError(
                Reason.ROLE_MISSING,
                f"the entry is in {current.state}: {rule.event} is then an act of a person with the role "
                f"{' or '.join(sorted(rule.roles))}",
            )
        if actor.role is not Role.DATA_AUTHORITY:
            _check_provider(current.provider, actor.department)
        if rule.other_person:
            for account in (*current.described_by, *current.signed_by):
                refusal = refuse_second_signature(account, actor.id, step.persons)
                if refusal is not None:
                    raise RefusedError(refusal.reason, refusal.explanation)
        _check_given(current, rule, step)
        if rule.complete:
            check_metadata(self.faults(work, current))

    def _check_sources(self, work: UnitOfWork, record: CatalogueRecord) -> None:
        """Check that the department may be the source of the elements that its entry says (decree 809, Art. 19)."""
        codes = sources_of(record.metadata)
        for code in codes:  # in their order: two publications wait for each other, and neither without end
            element = self._elements.lock(work, code)
            if element is not None:
                check_source(element, record.provider, self._elements.claims(work, code))
        self._elements.replace_claims(work, record.topic, record.provider, codes)

    def _carry_out(self, work: UnitOfWork, record: CatalogueRecord, step: Step) -> None:
        """Write into the entry what the event puts in force."""
        topic = record.topic
        match step.event:
            case EntryEvent.PUBLISH:
                self._check_sources(work, record)
                entry = self._catalogue.get(work, topic)
                entry = self._catalogue.change(work, _applied(entry, record.metadata))
                if entry.state is EntryState.DRAFT:
                    self._catalogue.publish(work, topic, self._fields, version=entry.version)
                self._search.index_metadata(work, topic, record.metadata)
            case EntryEvent.SUSPEND:
                self._catalogue.suspend(work, topic)
            case EntryEvent.RESUME:
                self._catalogue.resume(work, topic)
            case EntryEvent.RETIRE | EntryEvent.WITHDRAW:
                self._catalogue.archive(work, topic, version=self._catalogue.get(work, topic).version)
                self._elements.replace_claims(work, topic, record.provider, ())
            case _:
                pass


def check_metadata(faults: Sequence[Fault]) -> None:
    """Refuse metadata that has faults.

    Raises:
        InvalidError: REQUEST_INVALID; its details have every fault, element by element.
    """
    if not faults:
        return
    details: dict[str, str] = {}
    for fault in faults:
        text = fault.text(Language.ENGLISH)
        details[fault.element] = f"{details[fault.element]}; {text}" if fault.element in details else text
    raise InvalidError(
        Reason.REQUEST_INVALID,
        f"the metadata has {len(faults)} faults: {'; '.join(details.values())}"[:4_000],
        details=details,
    )


def _check_given(current: CatalogueRecord, rule: EntryRule, step: Step) -> None:
    missing = [
        what
        for what, needed in (
            ("a reason", rule.needs_reason and not step.reason.strip()),
            ("the number of the filing (decree 809, Art. 27)", rule.needs_filing and not step.filing.strip()),
            ("the date of the change of law or duty", rule.event is _E.CHANGE and step.changed_on is None),
            ("the day from which it ends", rule.event is _E.ANNOUNCE and step.from_day is None),
        )
        if needed
    ]
    if missing:
        raise InvalidError(Reason.REQUEST_INVALID, f"{rule.event} needs {' and '.join(missing)}")
    if rule.event is _E.CHANGE and step.changed_on is not None and step.changed_on > _day(step.at):
        raise InvalidError(Reason.REQUEST_INVALID, "got a change of a later day; expected one that has happened")
    if rule.event is _E.EXTEND and (current.change is None or current.change.extended):
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED, "the time of this update was extended before; it is extended once (Art. 17)"
        )
    if rule.needs_notice and current.notice is None:
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED,
            "the provider has not announced that it ends, so no consumer was told; expected `pool catalogue announce` "
            "first (decree 809, Art. 27)",
        )
    if rule.event is _E.ANNOUNCE and step.from_day is not None and step.from_day < _day(step.at):
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"got the end {step.from_day}, which is past; expected today or later: it is a notice",
        )
    if rule.needs_notice and current.notice is not None and _day(step.at) < current.notice.from_day:
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED,
            f"the consumers were told that it ends on {current.notice.from_day}; retire it then, or let the provider "
            "announce an earlier day first",
        )
    if rule.event is _E.WITHDRAW and current.in_force:
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED, "the entry is in force; it is not withdrawn but retired, with notice"
        )


_After = Callable[[CatalogueRecord, Step], CatalogueRecord]


def _unchanged(record: CatalogueRecord, _step: Step) -> CatalogueRecord:
    return record


def _signed(record: CatalogueRecord, step: Step) -> CatalogueRecord:
    signed = replace(record, signed_by=_with(record.signed_by, step.actor.id))
    if record.state is _S.AUTHORITY_REVIEW and record.change is not None:
        signed = replace(signed, change=replace(record.change, resubmitted_at=step.at))
    return signed


def _returned(record: CatalogueRecord, _step: Step) -> CatalogueRecord:
    return replace(record, signed_by=())


def _published(record: CatalogueRecord, _step: Step) -> CatalogueRecord:
    return replace(record, in_force=record.version, described_by=(), signed_by=(), change=None)


def _changing(record: CatalogueRecord, step: Step) -> CatalogueRecord:
    on = _day(step.at) if step.changed_on is None else step.changed_on
    return replace(record, change=LegalChange(on=on), notice=None, described_by=(), signed_by=())


def _extended(record: CatalogueRecord, _step: Step) -> CatalogueRecord:
    return record if record.change is None else replace(record, change=replace(record.change, extended=True))


def _announced(record: CatalogueRecord, step: Step) -> CatalogueRecord:
    notice = RetirementNotice(
        at=step.at,
        by=step.actor.id,
        reason=step.reason,
        filing=step.filing,
        from_day=step.from_day or _day(step.at),
        consumers=tuple(sorted({*step.consumers})),
    )
    return replace(record, notice=notice, signed_by=_with(record.signed_by, step.actor.id))


_AFTER: Mapping[EntryEvent, _After] = {
    _E.SUBMIT: _signed,
    _E.APPROVE: _signed,
    _E.RETURN: _returned,
    _E.PUBLISH: _published,
    _E.CHANGE: _changing,
    _E.EXTEND: _extended,
    _E.ANNOUNCE: _announced,
}


def _rule(current: CatalogueRecord, event: EntryEvent) -> EntryRule:
    rule = rule_of(event, current.state)
    if rule is None:
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED, f"the entry {current.topic} is in {current.state}; {event} is not possible"
        )
    return rule


def _check_provider(provider: str, department: str) -> None:
    if provider != department:
        raise RefusedError(Reason.NOT_PROVIDER, "the entry is provided by another department than yours")


def _undescribed(topic: Topic) -> InvalidError:
    return InvalidError(
        Reason.NOT_FOUND, f"the entry {topic} has no full metadata yet; give it with `pool catalogue describe`"
    )


def _day(at: datetime) -> date:
    return at.astimezone(_SHANGHAI).date()


def _with(signed_by: tuple[str, ...], account: str) -> tuple[str, ...]:
    return signed_by if account in signed_by else (*signed_by, account)


def _new_entry(topic: Topic, provider: str, metadata: Metadata) -> CatalogueEntry:
    return CatalogueEntry(
        topic=topic,
        provider=provider,
        code=metadata.code,
        title=metadata.title,
        abstract=metadata.abstract,
        share_type=ShareType(metadata.share_type),
        share_scope=metadata.share_scope,
        use_purpose=metadata.use_purpose,
        refuse_reason=metadata.refuse_reason,
        legal_basis=metadata.legal_basis,
        level=Level[metadata.level],
    )


def _applied(entry: CatalogueEntry, metadata: Metadata) -> CatalogueEntry:
    return replace(
        entry,
        title=metadata.title,
        abstract=metadata.abstract,
        share_type=ShareType(metadata.share_type),
        share_scope=metadata.share_scope,
        use_purpose=metadata.use_purpose,
        refuse_reason=metadata.refuse_reason,
        legal_basis=metadata.legal_basis,
        level=Level[metadata.level],
    )


def _of_entry(entry: CatalogueEntry) -> Metadata:
    """Return the metadata that an entry without a record has."""
    return Metadata(
        title=entry.title,
        abstract=entry.abstract,
        class_code=entry.code.partition("/")[0],
        code=entry.code,
        share_type=str(entry.share_type),
        share_scope=entry.share_scope,
        use_purpose=entry.use_purpose,
        refuse_reason=entry.refuse_reason,
        legal_basis=entry.legal_basis,
        level=entry.level.name,
    )
