"""Look-up and verification: golden records of named subjects, or a yes or no about them, under a grant.

    (1) attributes  the grant as it is now, proven by its hash; resource; standing; quota; the database's clock
    (2) decision    purpose, case, window, ceiling, access mode, quota for all subjects asked; a denial is an entry
    (3) subjects    identifiers checked in form alone, then handles
    (4) read        golden rows and keys; unsealed, or a decoy where there is nothing to unseal
    (5) view        today's view of the grant: rows, fields, masks; of a verification the predicate's answer
    (6) entry       in one transaction: certificate and grant locked and decided by again, quota, one entry, commit
    (7) release     only within the release window after that commit was sent; later, nothing leaves

Absent is one word: who is unknown, outside the row filter, erased, restricted or set aside gets the same answer by the
same path. Quota counts subjects asked, not found; a call over the quota is refused whole.

The lock in (6) and the update of a suspension exclude each other, and a suspension is acknowledged only after the
release window as well, as for a fetch (`exchange.records.fetch`). If the entry is not durable, nothing leaves.
"""

import base64
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from exchange.access.decision.policy import decide
from exchange.access.decision.roles import Standing
from exchange.access.predicates.evaluation import Answer, compile_predicate, today_in_china
from exchange.access.predicates.model import RegisteredPredicate
from exchange.access.predicates.store import PredicateStore
from exchange.authorization.attributes import AttributeProvider, GrantAttributes
from exchange.authorization.enforcement import AuditWriter, Authorized, Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.authorization.restored import RestoreGuard
from exchange.authorization.serving import ServingGuard
from exchange.hub.fold.identity import Identifier, handle_of
from exchange.hub.store.keys import HubKeys
from exchange.lookups.answer_leaf import bitmap, leaf_data, salted_root
from exchange.lookups.answers import LookupAnswer, VerifyAnswer
from exchange.lookups.decoy_value import decoy_value
from exchange.lookups.golden_reading import EVERY_FIELD, GoldenReading, OpenedRecord, ReadRecords
from exchange.lookups.ports import GrantViews, SubjectPseudonyms, WriterTexts
from exchange.lookups.subjects import Subject, read_subjects
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from registry.database.unit_of_work import Database
from schemas.access import Action, Actor, Deny, Grant
from schemas.canonical import Json
from schemas.errors import ConflictError, CorruptError, InvalidError, Reason, RefusedError, UnavailableError
from schemas.failpoints import reached
from schemas.names import Topic
from schemas.record import unframe

__all__ = ["RESOURCES", "LookupService"]

RESOURCES: Final[Mapping[str, str]] = {
    f"hub-{library}": library for library in ("population", "legal-entity", "address")
}
"""Resource of the catalogue → the library whose golden records it shows. Those with one record a subject."""

_REQUEST_ID: Final = 16  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A call that was admitted.

    Attributes:
        actor, call, action: as declared.
        attributes: of the decision.
        library: whose records.
        names: identifiers in canonical form.
        request: id that the caller chose.
    """

    actor: Actor
    call: RequestContext
    action: Action
    attributes: GrantAttributes
    library: str
    names: Sequence[Identifier]
    request: bytes

    @property
    def grant(self) -> Grant:
        return self.attributes.grant


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    salt: bytes
    entry_id: str
    leaf_hash: bytes
    deadline: float


class LookupService:
    """Answers about subjects.

    Args:
        database: of grants and entries.
        enforcer, ledger, attributes: of the decision and its entry.
        predicates: registered ones.
        golden: reads golden records.
        keys: of the hub, for handles.
        schemas: under which golden records are written.
        views: of grants.
        pseudonyms: of the trace.
        restored, serving: nothing leaves while they forbid it.
        window: seconds after the commit in which an answer may leave.
        clock: microseconds UTC, for the day and what is stale.
    """

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        ledger: AuditWriter,
        attributes: AttributeProvider,
        predicates: PredicateStore,
        golden: GoldenReading,
        keys: HubKeys,
        schemas: WriterTexts,
        views: GrantViews,
        pseudonyms: SubjectPseudonyms,
        restored: RestoreGuard,
        serving: ServingGuard,
        window: float,
        clock: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._ledger = ledger
        self._attributes = attributes
        self._predicates = predicates
        self._golden = golden
        self._keys = keys
        self._schemas = schemas
        self._views = views
        self._pseudonyms = pseudonyms
        self._restored = restored
        self._serving = serving
        self._window = window
        self._clock = clock
        self._monotonic = monotonic

    def lookup(
        self, actor: Actor, call: RequestContext, grant_id: str, subjects: Sequence[Subject], *, request: bytes = b""
    ) -> LookupAnswer:
        """Return the golden records of subjects as the grant shows them today.

        Args:
            actor: who asks.
            call: purpose and case.
            grant_id: of a grant of the access mode `lookup`.
            subjects: 1 to the grant's `batch_max`.
            request: 16 bytes that a repetition of the call has too; empty for none.

        Raises:
            RefusedError: the current grant does not allow it; the denial is an entry.
            InvalidError: REQUEST_INVALID, IDENTIFIER_INVALID.
            UnavailableError: nothing was answered.
            CorruptError: a row of the hub or of the grant is not one that the pool wrote; nothing was answered.
        """
        asked = self._asked(actor, call, Action.HUB_LOOKUP, grant_id, subjects, request)
        read, shown = self._read(asked)
        values = [value or b"" for value in shown]
        special: dict[str, Json] = {
            "found": _base64(bitmap([bool(value) for value in values])),
            "fields": [*asked.grant.fields],
        }
        written = self._write(asked, read, values, special)
        return LookupAnswer(
            schema_id=asked.grant.view_schema_id or 0,
            values=values,
            basis=read.basis,
            rules=read.rules,
            entry_id=written.entry_id,
            leaf_hash=written.leaf_hash,
            salt=written.salt,
            deadline=written.deadline,
        )

    def verify(
        self,
        actor: Actor,
        call: RequestContext,
        grant_id: str,
        predicate: str,
        subjects: Sequence[Subject],
        *,
        request: bytes = b"",
    ) -> VerifyAnswer:
        """Return for each subject whether a registered predicate is true: yes, no or unknown.

        Unknown where the subject is absent, or a field that the answer needs is null, in conflict, disputed or stale.

        Args:
            actor: who asks.
            call: purpose and case.
            grant_id: of a grant of the access mode `verify`.
            predicate: as `name/version`, one that the grant names.
            subjects: 1 to the grant's `batch_max`.
            request: as of `lookup`.

        Raises:
            RefusedError: as of `lookup`; PREDICATE_UNKNOWN.
            InvalidError, UnavailableError, CorruptError: as of `lookup`.
        """
        asked = self._asked(actor, call, Action.HUB_VERIFY, grant_id, subjects, request, predicate)
        registered = self._registered(predicate, asked.library)
        read, shown = self._read(asked)
        records = [one if value is not None else None for one, value in zip(read.records, shown, strict=True)]
        answers = self._answers(registered, asked.grant.topic, records)
        special: dict[str, Json] = {
            "predicate": registered.name,
            "version": registered.version,
            "replaces": [*registered.replaces],
            "answered": _base64(bitmap([one is not Answer.UNKNOWN for one in answers])),
        }
        written = self._write(asked, read, [one.encode() for one in answers], special)
        return VerifyAnswer(
            predicate=registered.reference,
            answers=answers,
            basis=read.basis,
            rules=read.rules,
            entry_id=written.entry_id,
            leaf_hash=written.leaf_hash,
            salt=written.salt,
            deadline=written.deadline,
        )

    # (1), (2), (3)

    def _asked(
        self,
        actor: Actor,
        call: RequestContext,
        action: Action,
        grant_id: str,
        subjects: Sequence[Subject],
        request: bytes,
        predicate: str = "",
    ) -> _Asked:
        self._restored.require_release()
        self._serving.require()
        try:
            with self._database.read() as reader:
                attributes = self._attributes.grant(reader, grant_id)
                standing = self._attributes.standing_of(reader, actor)
        except CorruptError as error:
            if error.reason is Reason.GRANT_FORGED:  # a row that does not prove itself is a denial, and recorded as one
                self._enforcer.admit(actor, action, grant_id, call, Deny(error.reason, error.message))
            raise
        self._authorize(actor, action, call, standing, attributes, count=len(subjects), predicate=predicate)
        if attributes is None:  # the decision on an unknown grant is a denial, raised by then
            raise RefusedError(Reason.GRANT_UNKNOWN, "no such grant; ask for the list of your grants")
        if request and len(request) != _REQUEST_ID:
            raise InvalidError(
                Reason.REQUEST_INVALID, f"got a request id of {len(request)} bytes; expected {_REQUEST_ID}"
            )
        library = RESOURCES.get(attributes.grant.topic.name)
        if library is None:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got a grant on {attributes.grant.topic}; expected one on {', '.join(RESOURCES)}: a library",
            )
        names = read_subjects(subjects, attributes.grant.batch_max)
        return _Asked(
            actor=actor,
            call=call,
            action=action,
            attributes=attributes,
            library=library,
            names=names,
            request=request,
        )

    def _authorize(
        self,
        actor: Actor,
        action: Action,
        call: RequestContext,
        standing: Standing,
        attributes: GrantAttributes | None,
        *,
        count: int,
        predicate: str,
    ) -> Authorized:
        """Decide by these attributes; a denial is recorded in a transaction of its own, and raised."""
        actor = actor if attributes is None else attributes.in_zone(actor)
        decision = decide(actor, action, standing=standing, grant=attributes, purpose=call.purpose, case=call.case)
        resource = str(attributes.grant.topic) if attributes else ""
        reference = attributes.reference if attributes else None
        if attributes is not None and not isinstance(decision, Deny):
            refusal = _beyond(attributes, count, predicate)
            decision = decision if refusal is None else refusal
        return self._enforcer.admit(actor, action, resource, call, decision, reference)

    def _registered(self, reference: str, library: str) -> RegisteredPredicate:
        with self._database.read() as reader:
            found = self._predicates.confirmed(reader, [reference]).get(reference)
        if found is None or found.library != library:
            raise InvalidError(
                Reason.PREDICATE_UNKNOWN, f"the predicate is none of the library {library}; ask for another grant"
            )
        return found

    # (4), (5)

    def _read(self, asked: _Asked) -> tuple[ReadRecords, list[bytes | None]]:
        """Return the records, and what the grant's view shows of each; None for an absent one."""
        key = self._keys.handle_key()
        read = self._golden.read(asked.library, [handle_of(key, one) for one in asked.names], self._clock())
        with self._database.read() as reader:
            decoy = decoy_value(*self._schemas.latest(reader, asked.grant.topic))
        output = self._views.apply(asked.grant, [decoy if one is None else one.framed for one in read.records])
        values = iter(output.values)
        shown = [next(values) if kept else None for kept in output.selected]
        return read, [value if one is not None else None for one, value in zip(read.records, shown, strict=True)]

    def _answers(
        self, predicate: RegisteredPredicate, topic: Topic, records: Sequence[OpenedRecord | None]
    ) -> list[Answer]:
        compiled = compile_predicate(predicate.library, predicate.expression)
        with self._database.read() as reader:
            latest, text = self._schemas.latest(reader, topic)
            decoy = decoy_value(latest, text)
            framed = [unframe(decoy if one is None else one.framed) for one in records]
            texts = {id_: self._schemas.text(reader, id_) for id_, _ in framed}
        today = today_in_china(datetime.fromtimestamp(self._clock() / 1_000_000, UTC))
        unsure = [
            predicate.fields if one is None or one.unsure == EVERY_FIELD else predicate.fields & one.unsure
            for one in records
        ]
        answers: dict[int, Answer] = {}
        for id_, writer in texts.items():
            places = [at for at, (its, _) in enumerate(framed) if its == id_]
            batch = engine_for(parse(writer)).decode([framed[at][1] for at in places])
            found = compiled.answers(batch, today=today, unsure=[unsure[at] for at in places])
            answers |= zip(places, found, strict=True)
        return [Answer.UNKNOWN if one is None else answers[at] for at, one in enumerate(records)]

    # (6), (7)

    def _write(
        self, asked: _Asked, read: ReadRecords, answers: Sequence[bytes], special: Mapping[str, Json]
    ) -> _Written:
        """Write the entry of an answer; return what leaves beside it, within the window."""
        salt = os.urandom(16)
        epoch, key, pseudonyms = self._pseudonyms.subjects([(one.type, one.number) for one in asked.names])
        data = leaf_data(
            library=asked.library,
            epoch=epoch,
            key=key,
            pseudonyms=pseudonyms,
            basis=read.basis,
            rules=read.rules,
            root=salted_root(salt, answers),
            request=asked.request,
            special=special,
        )
        self._serving.require()
        predicate = f"{special['predicate']}/{special['version']}" if "predicate" in special else ""
        with self._database.begin() as work:
            locked = self._attributes.lock_grant(work, asked.grant.id)
            standing = self._attributes.lock_standing(work, asked.actor)
            authorized = self._authorize(
                asked.actor, asked.action, asked.call, standing, locked, count=len(asked.names), predicate=predicate
            )
            if locked.grant.version != asked.grant.version:
                raise ConflictError(
                    Reason.VERSION_CONFLICT,
                    "the grant changed while records were read; nothing was answered, ask again",
                )
            self._attributes.add_released(work, locked.grant, len(asked.names))
            entry = authorized.entry(data, flow=locked.flow)
            # The last write, but not sent with the commit: the time is taken once the entry is stored.
            leaf = self._ledger.write(work, [entry])[0]
            sent = self._monotonic()
        reached("after_release_entry")
        deadline = sent + self._window
        if self._monotonic() > deadline:
            raise UnavailableError(
                Reason.RELEASE_TOO_LATE,
                "the entry took longer than the release window; nothing was answered, ask again",
                retry_after=0.0,
            )
        return _Written(salt=salt, entry_id=entry.id, leaf_hash=leaf, deadline=deadline)


def _beyond(attributes: GrantAttributes, count: int, predicate: str) -> Deny | None:
    """Refuse what the grant does not hold: a predicate that it does not name, more subjects than are left today."""
    grant, released = attributes.grant, attributes.released_today
    if predicate and predicate not in grant.predicates:
        return Deny(
            Reason.PREDICATE_UNKNOWN, f"got a predicate that the grant does not name; it names {len(grant.predicates)}"
        )
    quota = grant.quota_per_day
    if quota is not None and (released is None or released + count > quota):
        return Deny(
            Reason.QUOTA_EXHAUSTED,
            f"got {count} subjects; expected at most what is left of the day's {quota}, which begins at 00:00 UTC+8",
        )
    return None


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
