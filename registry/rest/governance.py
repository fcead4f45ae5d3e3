"""Governance handlers: what this registry serves beside Confluent's API.

    GET  /governance/fields                         search: by tag, personal, sensitive, mask, level
    GET  /governance/subjects/{s}/versions/{v}      the classification of each field
    POST /governance/subjects/{s}/diff              what a schema would change, and which grants it would touch
    GET  /governance/subjects/{s}/grants            the grants on a subject that the caller may see
    POST /approvals                                 ask to take a classification back
    GET  /approvals, /approvals/{id}
    POST /approvals/{id}/decision                   {"approve": true}, by another person

A search shows fields of those subjects alone that the caller may read. The registry knows no grants; a function that it
is given returns them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from typing_extensions import override

from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader
from registry.governance.approvals import Approvals, ApprovalState
from registry.reports.diff import diff
from registry.reports.grant_impact import grant_impacts, read_grant_usage
from registry.rest.handlers import (
    LIMIT,
    NORMALIZE,
    OFFSET,
    SUBJECT_PREFIX,
    SUBMITTED,
    TAG_EDITS,
    Handlers,
    Shared,
    text_of,
)
from registry.rest.requests import version_of
from registry.rest.routing import Member, Parameter, Route
from registry.subjects.field_search import FieldQuery, FieldSearch, describe_fields
from schemas.access import Action, Actor
from schemas.errors import InvalidError, PoolError, Reason

__all__ = ["GovernanceHandlers", "GrantsOf"]

GrantsOf = Callable[[Actor, str], Sequence[Mapping[str, Any]]]
"""Returns the documents of the grants on a subject that an actor may see; raises RefusedError where it may see none."""

_FIELDS = (
    Parameter.text("tag", default=None),
    Parameter.text("personal", default=None, description="D = a direct identifier, P, or N"),
    Parameter.text("sensitive", default=None),
    Parameter.text("mask", default=None),
    Parameter.text("level", default=None, description="at least this one"),
    SUBJECT_PREFIX,
    OFFSET,
    LIMIT,
)
_ASKED = (
    Member(name="subject", schema={"type": "string"}, required=True),
    Member(name="reason", schema={"type": "string"}, required=True),
    *SUBMITTED,
    *TAG_EDITS,
)
_DECIDED = (
    Member(name="approve", schema={"type": "boolean"}, required=True),
    Member(name="reason", schema={"type": "string"}),
)
_APPROVALS = (Parameter.text("subject", default=None), Parameter.text("state", default=None))


class GovernanceHandlers(Handlers):
    """One method a call.

    Args:
        shared: what all groups have.
        approvals: requests and decisions.
        grants: who is granted what of a subject.
    """

    def __init__(self, shared: Shared, *, approvals: Approvals, grants: GrantsOf) -> None:
        super().__init__(shared)
        self._approvals = approvals
        self._grants = grants
        self._search = FieldSearch(shared.subjects.lookup)

    @override
    def routes(self) -> tuple[Route, ...]:
        subject = "/governance/subjects/{subject}"
        return (
            Route("GET", "/governance/fields", self.fields, _FIELDS),
            Route("GET", f"{subject}/versions/{{version}}", self.classification),
            Route("POST", f"{subject}/diff", self.compare, body=(*SUBMITTED, *TAG_EDITS)),
            Route("GET", f"{subject}/grants", self.grants),
            Route("POST", "/approvals", self.ask, (NORMALIZE,), body=_ASKED, status=201),
            Route("GET", "/approvals", self.approvals, _APPROVALS),
            Route("GET", "/approvals/{approval_id}", self.approval),
            Route("POST", "/approvals/{approval_id}/decision", self.decide, body=_DECIDED),
        )

    def fields(
        self,
        request: Request,
        *,
        tag: str | None,
        personal: str | None,
        sensitive: str | None,
        mask: str | None,
        level: str | None,
        prefix: str,
        offset: int,
        limit: int,
    ) -> JSONResponse:
        """Search the fields of the latest versions."""
        query = FieldQuery.parse(tag=tag, personal=personal, sensitive=sensitive, mask=mask, level=level, prefix=prefix)
        with self.listing(request) as listing, self.database.read() as reader:
            found = [
                (named, {"subject": subject, "version": version, "id": schema_id} | field.to_json())
                for subject, version, schema_id, field in self._search.find(reader, query)
                if all(map(listing.visible, named := self._subjects_of(reader, subject, schema_id)))
            ]
            part = listing.page(found, offset, limit, of=lambda one: one[0][0])
            for named, _ in part:
                listing.record(named)
            return JSONResponse([answer for _, answer in part])

    def _subjects_of(self, reader: Reader, subject: str, schema_id: int) -> list[str]:
        """Return the subjects whose fields a schema has: its own, and those that it refers to."""
        references = self.lookup.by_id(reader, schema_id).content.references
        return [subject, *(self.lookup.referenced_subjects(reader, references) if references else ())]

    def classification(self, request: Request, subject: str, version: str) -> list[dict[str, Any]]:
        """Return what a version says of each field."""
        name = self.resolve_alias(subject)
        with self.read_under(request, name) as reader:
            found = self.lookup.version(reader, name, version_of(version))
            self.require_readable(request, reader, found.content.references)
            facts = describe_fields(self.lookup.parsed_for_comparison(reader, found.schema_id), found.content.metadata)
            return [dict(field.to_json()) for field in facts]

    def compare(self, request: Request, subject: str, body: dict[str, Any]) -> dict[str, Any]:
        """Compare a schema with the latest version: for readers, for the classification, for grants."""
        name = self.resolve_alias(subject)
        content = self.read_submission(request, name, body)
        actor = self.actor(request)
        with self.access.read(actor, Action.SCHEMA_READ, name) as reader:
            latest = self.lookup.version(reader, name, None)
            self.require_readable(request, reader, latest.content.references)
            old = self.lookup.parsed_for_comparison(reader, latest.schema_id)
            submission = self.registration.read(reader, name, content)
            new, registered = submission.parsed, self.registration.with_contract(reader, name, submission.content)
            if new is None:
                raise InvalidError(
                    Reason.REQUEST_INVALID, f"got a schema of the type {content.schema_type}; expected AVRO"
                )
            changes = diff(old, new, metadata=(latest.content.metadata, registered.metadata))
        answer: dict[str, Any] = {"version": latest.number, "changes": [change.to_json() for change in changes]}
        try:
            uses = [read_grant_usage(one) for one in self._grants(actor, name)]
        except PoolError as error:
            return answer | {"grants": None, "grantsRefused": error.message}
        return answer | {"grants": [item.to_json() for item in grant_impacts(changes, uses, old, new)]}

    def grants(self, request: Request, subject: str) -> list[dict[str, Any]]:
        """Return the grants on a subject that the caller may see."""
        name = self.resolve_alias(subject)
        actor = self.actor(request)
        with self.access.read(actor, Action.SCHEMA_READ, name):
            return [dict(one) for one in self._grants(actor, name)]

    def ask(self, request: Request, body: dict[str, Any], *, normalize: bool) -> dict[str, Any]:
        """Ask that a schema may be registered although it takes a classification back.

        Who registers it with `normalize` asks with it, too: an approval is of what would be registered.
        """
        subject, reason = self.resolve_alias(text_of(body, "subject")), text_of(body, "reason")
        content = self.read_submission(request, subject, body)
        actor = self.actor(request)
        with self.access.act(actor, Action.APPROVAL_ASK, subject, {"reason": reason}) as (work, entry):
            fingerprint, findings = self.registration.lowered_classification(
                work, subject, content, normalize=normalize
            )
            asked = self._approvals.ask(
                work,
                actor,
                subject=subject,
                fingerprint=fingerprint,
                text=content.text,
                findings=findings,
                reason=reason,
            )
            entry.note(approval=asked.id, findings=len(asked.findings))
        return dict(asked.to_json())

    def approvals(self, request: Request, *, subject: str | None, state: str | None) -> list[dict[str, Any]]:
        """List the requests, oldest first."""
        wanted = None
        if subject is not None and not subject.isprintable():
            raise InvalidError(Reason.SUBJECT_INVALID, "got a subject with control characters; expected printable text")
        if state is not None:
            if state not in set(ApprovalState):
                raise InvalidError(
                    Reason.REQUEST_INVALID, f"got the state {state[:40]!r}; expected one of {', '.join(ApprovalState)}"
                )
            wanted = ApprovalState(state)
        with self.listing(request) as listing, self.database.read() as reader:
            found = [
                one
                for one in self._approvals.find(reader, subject=subject, state=wanted)
                if listing.visible(one.about if isinstance(one, DamagedRow) else one.subject)
            ]
            listing.record(one.subject for one in found if not isinstance(one, DamagedRow))
            return [one.document() if isinstance(one, DamagedRow) else dict(one.to_json()) for one in found]

    def approval(self, request: Request, approval_id: str) -> dict[str, Any]:
        """Return a request and what became of it."""
        actor = self.actor(request)
        with self.database.read() as reader:
            found = self._approvals.get(reader, approval_id)
        with self.access.read(actor, Action.SCHEMA_READ, found.subject):
            return dict(found.to_json())

    def decide(self, request: Request, approval_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Approve or refuse a request of another person."""
        approve, answer = body.get("approve"), body.get("reason", "")
        if not isinstance(approve, bool) or not isinstance(answer, str):
            raise InvalidError(
                Reason.REQUEST_INVALID, 'got a decision of another form; expected {"approve": true or false, "reason"}'
            )
        actor = self.actor(request)
        with self.database.read() as reader:
            asked = self._approvals.get(reader, approval_id)
        with self.access.act(actor, Action.APPROVAL_DECIDE, asked.subject, {"reason": answer}) as (work, entry):
            decided = self._approvals.decide(work, actor, approval_id, approve=approve, answer=answer)
            entry.note(approval=decided.id, state=decided.state.value, asked_by=decided.asked_by)
        return dict(decided.to_json())
