"""What this registry serves beside Confluent's API: governance.

    GET  /governance/fields                         search: by tag, personal, sensitive, mask, level
    GET  /governance/subjects/{s}/versions/{v}      the classification of each field
    POST /governance/subjects/{s}/diff              what a schema would change, and which grants it would touch
    GET  /governance/subjects/{s}/grants            the grants on a subject that the caller may see
    POST /approvals                                 ask to take a classification back
    GET  /approvals, /approvals/{id}
    POST /approvals/{id}/decision                   {"approve": true}, by another person

A search shows fields of those subjects alone that the caller may read. Grants come from whoever keeps them: the
registry knows none, and hands on what it is given.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from registry.database.unit_of_work import Database, Reader
from registry.governance.approvals import Approvals, ApprovalState
from registry.reports.diff import diff
from registry.reports.grant_impact import grant_impacts, read_grant_usage
from registry.rest.access import AccessControl
from registry.rest.errors import Dialect
from registry.rest.handlers import Body, Calls, Identify, Limit, Normalize, Offset, route, text_of
from registry.rest.requests import version_of
from registry.rest.response_cache import ResponseCache
from registry.subjects import contexts
from registry.subjects.field_search import FieldQuery, FieldSearch, describe_fields
from registry.subjects.services import SubjectServices
from schemas.access import Action, Actor
from schemas.errors import InvalidError, PoolError, Reason

__all__ = ["GovernanceCalls", "GrantsOf"]

GrantsOf = Callable[[Actor, str], Sequence[Mapping[str, Any]]]
"""Gives the documents of the grants on a subject that an actor may see; raises RefusedError where it may see none."""

_Word = Annotated[str | None, Query()]


class GovernanceCalls(Calls):
    """One method a call.

    Args:
        approvals: requests and decisions.
        grants: who is granted what of a subject.
    """

    def __init__(
        self,
        subjects: SubjectServices,
        access: AccessControl,
        database: Database,
        identify: Identify,
        *,
        ready: ResponseCache,
        dialect: Dialect,
        version: str,
        approvals: Approvals,
        grants: GrantsOf,
    ) -> None:
        super().__init__(subjects, access, database, identify, ready=ready, dialect=dialect, version=version)
        self._approvals = approvals
        self._grants = grants
        self._search = FieldSearch(subjects.lookup)

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter()
        for method, path, call in (
            ("GET", "/governance/fields", self.fields),
            ("GET", "/governance/subjects/{subject}/versions/{version}", self.classification),
            ("POST", "/governance/subjects/{subject}/diff", self.compare),
            ("GET", "/governance/subjects/{subject}/grants", self.grants),
            ("POST", "/approvals", self.ask),
            ("GET", "/approvals", self.approvals),
            ("GET", "/approvals/{approval_id}", self.approval),
            ("POST", "/approvals/{approval_id}/decision", self.decide),
        ):
            route(router, method, path, call, done=201 if call == self.ask else 200)
        return router

    def fields(
        self,
        request: Request,
        *,
        tag: _Word = None,
        personal: Annotated[str | None, Query(description="D = a direct identifier, P, or N")] = None,
        sensitive: _Word = None,
        mask: _Word = None,
        level: Annotated[str | None, Query(description="at least this one")] = None,
        prefix: Annotated[str, Query(alias="subjectPrefix")] = contexts.EVERY,
        offset: Offset = 0,
        limit: Limit = -1,
    ) -> JSONResponse:
        """Search the fields of the latest versions."""
        query = FieldQuery.read(tag=tag, personal=personal, sensitive=sensitive, mask=mask, level=level, prefix=prefix)
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

    def compare(self, request: Request, subject: str, body: Body) -> dict[str, Any]:
        """Compare a schema with the latest version: for readers, for the classification, for grants."""
        name = self.resolve_alias(subject)
        content = self.read_submission(request, name, body)
        actor = self._identify(request)
        with self._access.read(actor, Action.SCHEMA_READ, name) as reader:
            latest = self.lookup.version(reader, name, None)
            self.require_readable(request, reader, latest.content.references)
            old = self.lookup.parsed_for_comparison(reader, latest.schema_id)
            new = self.registration.read(reader, name, content).parsed
            if new is None:
                raise InvalidError(Reason.REQUEST_INVALID, f"got a schema of the type {content.kind}; expected AVRO")
            changes = diff(old, new)
        answer: dict[str, Any] = {"version": latest.number, "changes": [change.to_json() for change in changes]}
        try:
            uses = [read_grant_usage(one) for one in self._grants(actor, name)]
        except PoolError as error:
            return answer | {"grants": None, "grantsRefused": error.message}
        return answer | {"grants": [item.to_json() for item in grant_impacts(changes, uses, old, new)]}

    def grants(self, request: Request, subject: str) -> list[dict[str, Any]]:
        """Return the grants on a subject that the caller may see."""
        name = self.resolve_alias(subject)
        actor = self._identify(request)
        with self._access.read(actor, Action.SCHEMA_READ, name):
            return [dict(one) for one in self._grants(actor, name)]

    def ask(self, request: Request, body: Body, *, normalize: Normalize = False) -> JSONResponse:
        """Ask that a schema may be registered although it takes a classification back.

        Who registers it with `normalize` asks with it, too: an approval is of what would be registered.
        """
        subject, because = self.resolve_alias(text_of(body, "subject")), text_of(body, "reason")
        content = self.read_submission(request, subject, body)
        actor = self._identify(request)
        with self._access.act(actor, Action.APPROVAL_ASK, subject) as (work, entry):
            shape, findings = self.registration.lowered_classification(work, subject, content, normalize=normalize)
            asked = self._approvals.ask(
                work, actor, subject=subject, shape=shape, text=content.text, findings=findings, because=because
            )
            entry.note(approval=asked.id, findings=len(asked.findings))
        return JSONResponse(asked.to_json(), status_code=201)

    def approvals(self, request: Request, *, subject: _Word = None, state: _Word = None) -> list[dict[str, Any]]:
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
                if listing.visible(one.subject)
            ]
            listing.record(one.subject for one in found)
            return [dict(one.to_json()) for one in found]

    def approval(self, request: Request, approval_id: str) -> dict[str, Any]:
        """Return a request and what became of it."""
        actor = self._identify(request)
        with self.database.read() as reader:
            found = self._approvals.get(reader, approval_id)
        with self._access.read(actor, Action.SCHEMA_READ, found.subject):
            return dict(found.to_json())

    def decide(self, request: Request, approval_id: str, body: Body) -> dict[str, Any]:
        """Approve or refuse a request of another person."""
        approve, answer = body.get("approve"), body.get("reason", "")
        if not isinstance(approve, bool) or not isinstance(answer, str):
            raise InvalidError(
                Reason.REQUEST_INVALID, 'got a decision of another form; expected {"approve": true or false, "reason"}'
            )
        actor = self._identify(request)
        with self.database.read() as reader:
            asked = self._approvals.get(reader, approval_id)
        with self._access.act(actor, Action.APPROVAL_DECIDE, asked.subject) as (work, entry):
            decided = self._approvals.decide(work, actor, approval_id, approve=approve, answer=answer)
            entry.note(approval=decided.id, state=decided.state.value, asked_by=decided.asked_by)
        return dict(decided.to_json())
