"""What all calls of the registry's API share: who calls, the gate, what a body says, what is documented."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from registry.database.unit_of_work import Database, Reader, UnitOfWork
from registry.rest.access import AccessControl, AuditHandle, Listing
from registry.rest.errors import Dialect
from registry.rest.requests import DEFAULT_MEDIA_TYPE, read_body, subject_of
from registry.rest.response_cache import ResponseCache
from registry.subjects import contexts
from registry.subjects.data_contracts import checked_metadata, checked_rules
from registry.subjects.model import Content, Reference, StoredSchema
from registry.subjects.services import SubjectServices
from schemas.access import Action, Actor
from schemas.errors import InvalidError, PoolError, Reason

__all__ = [
    "Body",
    "Calls",
    "Flag",
    "Format",
    "Identify",
    "Limit",
    "Normalize",
    "Offset",
    "ReferenceFormat",
    "accepts_unknown_properties",
    "content_of",
    "number_of",
    "raw",
    "text_of",
]


Identify = Callable[[Request], Actor]
"""Says who calls; raises RefusedError (NO_IDENTITY, TOKEN_INVALID …) where it cannot."""

Flag = Annotated[bool, Query()]
Normalize = Annotated[bool, Query(description="take the schema's normal form, as the configuration's `normalize` does")]
Format = Annotated[str, Query(alias="format", description="`resolved` writes an Avro schema's references into it")]
ReferenceFormat = Annotated[
    str, Query(alias="referenceFormat", description="no effect: references name their context in every answer")
]
Offset = Annotated[int, Query(description="first of the page, from 0")]
Limit = Annotated[int, Query(description="items of the page; negative = all")]
Body = Annotated[dict[str, Any], Depends(read_body)]

_ERROR = {
    "description": "an error, with Confluent's number",
    "content": {
        DEFAULT_MEDIA_TYPE: {
            "schema": {
                "type": "object",
                "required": ["error_code", "message"],
                "properties": {"error_code": {"type": "integer"}, "message": {}},
            }
        }
    },
}
_STATUSES = (400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 500, 503)
_DONE: dict[str, Any] = {"description": "done", "content": {DEFAULT_MEDIA_TYPE: {"schema": {}}}}
_REFUSALS: dict[int | str, dict[str, Any]] = dict.fromkeys(_STATUSES, _ERROR)


class Calls:
    """What the groups of calls are made from."""

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
    ) -> None:
        self.lookup = subjects.lookup
        self.registration = subjects.registration
        self.deletion = subjects.deletion
        self.configuration = subjects.configuration
        self.database = database
        self.ready = ready
        self.dialect = dialect
        self.version = version
        self._access = access
        self._identify = identify

    def write_act(
        self, request: Request, action: Action, subject: str
    ) -> AbstractContextManager[tuple[UnitOfWork, AuditHandle]]:
        """Open an act that changes something, within a transaction."""
        return self._access.act(self._identify(request), action, subject)

    def read_under(self, request: Request, subject: str) -> AbstractContextManager[Reader]:
        """Open a read under a subject; empty for one of all."""
        return self._access.read(self._identify(request), Action.SCHEMA_READ, subject)

    @contextmanager
    def listing(self, request: Request, *, admitted: bool = False) -> Iterator[Listing]:
        """Open a read over many subjects; *admitted*: the caller was let in to what they are listed for."""
        with self._access.list(self._identify(request), admitted=admitted) as shown:
            yield Listing(shown)

    @contextmanager
    def read_by_id(
        self, request: Request, find: Callable[[Reader], StoredSchema]
    ) -> Iterator[tuple[Reader, StoredSchema]]:
        """Open a read of what an id stands for; who calls is known before anything is looked up."""
        actor = self._identify(request)
        with self.database.read() as reader:
            schema = find(reader)

        def others() -> list[str]:
            with self.database.read() as reader:
                return [item.subject for item in self.lookup.uses(reader, schema.id)]

        subject = self._access.readable_subject(actor, schema.origin, others)
        with self._access.read(actor, Action.SCHEMA_READ_BY_ID, subject) as reader:
            yield reader, schema

    def resolve_alias(self, raw_subject: str) -> str:
        """Return the subject that a name in a path or a body means: what an alias stands for."""
        with self.database.read() as reader:
            return self.configuration.alias(reader, subject_of(raw_subject))

    def read_submission(self, request: Request, subject: str, body: Mapping[str, Any]) -> Content:
        """Read what a body submits under a subject.

        Raises:
            InvalidError: see `content_of`.
            RefusedError: it refers to a schema that the caller may not read, or through others; to refer to one is to
                read it.
        """
        actor = self._identify(request)
        content = content_of(body)
        direct = {(contexts.relative(item.subject, subject), item.version) for item in content.references}
        passed = {name for name, _ in direct}
        self._require_each(actor, passed)
        for name, number in sorted(direct):
            try:
                with self.database.read() as reader:
                    found = self.lookup.version(reader, name, None if number == -1 else number)
                    needed = {*self.lookup.referenced_subjects(reader, found.content.references)}
            except InvalidError:
                continue  # reading the content refuses it
            self._require_each(actor, needed - passed)
        return content

    def require_readable(self, request: Request, reader: Reader, references: Iterable[Reference]) -> None:
        """Refuse a caller who may not read everything that references are to, and what that refers to in turn.

        Raises:
            RefusedError: one of them is not open to the caller.
        """
        self._require_each(self._identify(request), self.lookup.referenced_subjects(reader, references))

    def _require_each(self, actor: Actor, names: Iterable[str]) -> None:
        for name in sorted(names):
            with self._access.read(actor, Action.SCHEMA_READ, name):
                pass

    def written_in(self, request: Request, reader: Reader, schema_id: int) -> str:
        """Return an id's text with its references written in, to a caller who may read each of them.

        Raises:
            RefusedError: one of them is not open to the caller.
        """
        self.require_readable(request, reader, self.lookup.by_id(reader, schema_id).content.references)
        return self.lookup.inlined_text(reader, schema_id)


def route(
    router: APIRouter, method: str, path: str, call: Callable[..., Any], *, also: int | None = None, done: int = 200
) -> None:
    """Add a call to a router, with everything that it may answer; *also* is a status without a body.

    *done* is the status of what was done.
    """
    name = f"{call.__name__}_{method.lower()}{'_one' if path.endswith('{subject}') else ''}"
    takes_body = method in ("POST", "PUT") and path != "/"
    extra = {
        "requestBody": {
            "required": True,
            "content": {DEFAULT_MEDIA_TYPE: {"schema": {"type": "object"}}},
        }
    }
    router.add_api_route(
        path,
        call,
        methods=[method],
        operation_id=name,
        response_model=None,
        status_code=done,
        responses={done: _DONE, **_REFUSALS, **({} if also is None else {also: {"description": "nothing to say"}})},
        openapi_extra=extra if takes_body else None,
    )


def content_of(body: Mapping[str, Any]) -> Content:
    """Read what a body submits.

    Raises:
        InvalidError: REQUEST_INVALID; RULES_INVALID.
    """
    references = body.get("references") or []
    try:
        listed = tuple(_reference(item) for item in references)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InvalidError(
            Reason.REQUEST_INVALID, 'got "references" of another form; expected [{"name", "subject", "version"}]'
        ) from error
    return Content(
        text=text_of(body, "schema"),
        kind=text_of(body, "schemaType") if body.get("schemaType") is not None else "AVRO",
        references=listed,
        metadata=checked_metadata(body.get("metadata")),
        rule_set=checked_rules(body.get("ruleSet")),
    )


def _reference(item: Mapping[str, Any]) -> Reference:
    name, subject, version = item["name"], item["subject"], item["version"]
    if not (isinstance(name, str) and isinstance(subject, str) and type(version) is int):
        raise TypeError
    if not (version == -1 or 1 <= version < 2**31) or not (subject.isprintable() and name.isprintable()):
        raise ValueError
    return Reference(name, subject, version)


def text_of(body: Mapping[str, Any], name: str) -> str:
    """Read a string of a body.

    Raises:
        InvalidError: REQUEST_INVALID.
    """
    value = body.get(name)
    if not isinstance(value, str):
        got = "nothing" if value is None else f"a value of type {type(value).__name__}"
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f'got {got} for "{name}" in the body; expected a string',
            details={"missing": name} if value is None else None,
        )
    return value


def number_of(body: Mapping[str, Any], name: str) -> int | None:
    """Read a number of a body, None where it is left out; -1 leaves it out too.

    Raises:
        InvalidError: REQUEST_INVALID.
    """
    value = body.get(name)
    if value is None or value == -1:
        return None
    if type(value) is not int or not 0 < value < 2**31:
        raise InvalidError(Reason.REQUEST_INVALID, f'got "{name}" of another form; expected 1 to 2^31-1')
    return value


def accepts_unknown_properties(request: Request) -> bool:
    """Return whether a client takes properties that it does not know; older Java clients fail on them."""
    return request.headers.get("confluent-accept-unknown-properties", "").lower() == "true"


def raw(text: str) -> Response:
    """Answer with a schema itself."""
    return Response(text, media_type="application/json")


def looked_up(error: PoolError, subject: str) -> PoolError:
    """Say of a schema that cannot be read that it was looked up."""
    if error.reason in {Reason.SCHEMA_INVALID, Reason.SCHEMA_UNSAFE}:
        error.details["looked_up"] = subject
    return error
