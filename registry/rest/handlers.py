"""Handlers' base: identification, access, what a body submits, shared query parameters.

A handler is a plain function that runs in a thread and may wait for the database. The caller is identified once a
request.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from registry.avro.schema_types import SchemaType
from registry.database.unit_of_work import Database, Reader, UnitOfWork
from registry.governance.tags import edit_tags, parse_tag_edits
from registry.rest.access import AccessControl, AuditHandle, Listing
from registry.rest.errors import Dialect
from registry.rest.requests import subject_of
from registry.rest.response_cache import ResponseCache
from registry.rest.routing import Member, Parameter, Route
from registry.subjects import contexts
from registry.subjects.data_contracts import RULE_KINDS, RULE_LISTS, RULE_MODES, validate_metadata, validate_rules
from registry.subjects.model import Content, SchemaReference, StoredSchema
from registry.subjects.services import SubjectServices
from schemas.access import Action, Actor
from schemas.errors import InvalidError, PoolError, Reason

__all__ = [
    "DELETED",
    "FORMAT",
    "LIMIT",
    "METADATA",
    "NORMALIZE",
    "OFFSET",
    "REFERENCE_FORMAT",
    "RULE_SET",
    "SUBJECT_PREFIX",
    "SUBMITTED",
    "TAGS",
    "TAG_EDITS",
    "Handlers",
    "Identify",
    "IdentifyFromCache",
    "Shared",
    "accepts_unknown_properties",
    "as_lookup_error",
    "content_of",
    "number_of",
    "schema_response",
    "text_of",
]

Identify = Callable[[Request], Actor]
"""Returns who calls; raises RefusedError (NO_IDENTITY, TOKEN_INVALID …) where it cannot."""

IdentifyFromCache = Callable[[Mapping[str, Any]], Actor | None]
"""Returns who calls by an ASGI scope, None where that is not known without waiting. Runs on the event loop."""

_ACTOR = "registry.actor"  # in the scope, which is one request's alone


def _object(**members: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": members, "additionalProperties": False}


DELETED = Parameter.flag("deleted")
NORMALIZE = Parameter.flag(
    "normalize", description="take the schema's normal form, as the configuration's `normalize` does"
)
FORMAT = Parameter.choice(
    "format", "form", ("", "resolved"), description="`resolved` writes an Avro schema's references into it"
)
REFERENCE_FORMAT = Parameter.choice(
    "referenceFormat",
    "references",
    ("", "qualified"),
    description="references name their context in every answer, so that no other form is offered",
    also="reference_format",
)
TAGS = Parameter.texts("findTags", "tags", description="return where these tags are; * = any")
SUBJECT_PREFIX = Parameter.text("subjectPrefix", "prefix", default=contexts.ALL_CONTEXTS)
OFFSET = Parameter.number("offset", default=0, description="first of the page, from 0")
LIMIT = Parameter.number("limit", default=-1, description="items of the page; negative = all")

_TEXTS = {"type": "array", "items": {"type": "string"}}
_NAMED_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
METADATA = _object(
    tags={"type": "object", "additionalProperties": _TEXTS},
    properties=_NAMED_TEXTS,
    sensitive=_TEXTS | {"description": "names of properties whose values are not to be stored"},
)
_RULE = _object(
    **{key: {"type": "string"} for key in ("name", "doc", "type", "expr", "onSuccess", "onFailure")},
    kind={"enum": sorted(RULE_KINDS)},
    mode={"enum": sorted(RULE_MODES)},
    tags=_TEXTS,
    params=_NAMED_TEXTS,
    disabled={"type": "boolean"},
)
RULE_SET = _object(
    **{key: {"type": "array", "items": _RULE} for key in RULE_LISTS},
    enableAt={},
)
_ENTITY = _object(entityPath={"type": "string"}, entityType={"enum": ["sr_field", "sr_record"]})
_TAG_EDITS = {"type": "array", "items": _object(schemaEntity=_ENTITY, tags=_TEXTS)}
_REFERENCE = _object(name={"type": "string"}, subject={"type": "string"}, version={"type": "integer"})
SUBMITTED = (
    Member(name="schema", schema={"type": "string"}, required=True),
    Member(name="schemaType", schema={"type": "string", "default": "AVRO"}),
    Member(name="references", schema={"type": "array", "items": _REFERENCE}),
    Member(name="metadata", schema=METADATA),
    Member(name="ruleSet", schema=RULE_SET),
)
"""Members of a body that submits a schema."""

TAG_EDITS = (
    Member(name="schemaTagsToAdd", schema=_TAG_EDITS),
    Member(name="schemaTagsToRemove", schema=_TAG_EDITS),
)
"""Members that change the tags of a submitted schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all groups of handlers are made from.

    Attributes:
        subjects: the services behind the API.
        access: decides on acts and reads, and records them.
        database: opens readers.
        identify: returns who calls.
        identify_from_cache: returns it without waiting, or None.
        responses: serialized schemas by id.
        dialect: whose texts errors have.
        version: of the product.
    """

    subjects: SubjectServices
    access: AccessControl
    database: Database
    identify: Identify
    identify_from_cache: IdentifyFromCache
    responses: ResponseCache
    dialect: Dialect
    version: str


class Handlers:
    """A group of handlers: one method each, and the routes to them."""

    def __init__(self, shared: Shared) -> None:
        self.lookup = shared.subjects.lookup
        self.registration = shared.subjects.registration
        self.deletion = shared.subjects.deletion
        self.configuration = shared.subjects.configuration
        self.database = shared.database
        self.responses = shared.responses
        self.dialect = shared.dialect
        self.version = shared.version
        self.access = shared.access
        self.identify_from_cache = shared.identify_from_cache
        self._identify = shared.identify

    def routes(self) -> tuple[Route, ...]:
        """Return the rows of the routing table."""
        raise NotImplementedError

    def actor(self, request: Request) -> Actor:
        """Return who calls, asked once a request.

        Raises:
            RefusedError: NO_IDENTITY, TOKEN_INVALID, CERTIFICATE_EXPIRED or CERTIFICATE_REVOKED.
        """
        found: Actor | None = request.scope.get(_ACTOR)
        if found is None:
            found = request.scope[_ACTOR] = self._identify(request)
        return found

    def write_act(
        self, request: Request, action: Action, subject: str
    ) -> AbstractContextManager[tuple[UnitOfWork, AuditHandle]]:
        """Open an act that changes something, within a transaction."""
        return self.access.act(self.actor(request), action, subject)

    def read_under(self, request: Request, subject: str) -> AbstractContextManager[Reader]:
        """Open a read under a subject; empty for one of all."""
        return self.access.read(self.actor(request), Action.SCHEMA_READ, subject)

    @contextmanager
    def listing(self, request: Request, *, admitted: bool = False) -> Iterator[Listing]:
        """Open a read over many subjects; *admitted*: the caller was let in to what they are listed for."""
        with self.access.list(self.actor(request), admitted=admitted) as visibility:
            yield Listing(visibility)

    @contextmanager
    def read_by_id(
        self, request: Request, find: Callable[[Reader], StoredSchema]
    ) -> Iterator[tuple[Reader, StoredSchema]]:
        """Open a read of the schema of an id or a GUID; the caller is identified before anything is looked up."""
        actor = self.actor(request)
        with self.database.read() as reader:
            schema = find(reader)

        def others() -> list[str]:
            with self.database.read() as reader:
                return [item.subject for item in self.lookup.versions_by_schema_id(reader, schema.id)]

        subject = self.access.readable_subject(actor, schema.origin, others)
        with self.access.read(actor, Action.SCHEMA_READ_BY_ID, subject) as reader:
            yield reader, schema

    def resolve_alias(self, raw_subject: str) -> str:
        """Return the subject that a name in a path or a body means: for an alias, that of the alias."""
        with self.database.read() as reader:
            return self.configuration.resolve_alias(reader, subject_of(raw_subject))

    def read_submission(self, request: Request, subject: str, body: Mapping[str, Any]) -> Content:
        """Read what a body submits under a subject.

        Raises:
            InvalidError: see `content_of`.
            RefusedError: it refers to a schema that the caller may not read, or through others; to refer to one is to
                read it.
        """
        actor = self.actor(request)
        content = content_of(body)
        direct = {(contexts.resolve_subject(item.subject, subject), item.version) for item in content.references}
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

    def require_readable(self, request: Request, reader: Reader, references: Iterable[SchemaReference]) -> None:
        """Refuse a caller who may not read everything that references are to, and what that refers to in turn.

        Raises:
            RefusedError: one of them is not open to the caller.
        """
        self._require_each(self.actor(request), self.lookup.referenced_subjects(reader, references))

    def _require_each(self, actor: Actor, names: Iterable[str]) -> None:
        for name in sorted(names):
            with self.access.read(actor, Action.SCHEMA_READ, name):
                pass

    def inlined_text(self, request: Request, reader: Reader, schema_id: int) -> str:
        """Return an id's text with its references written in, to a caller who may read each of them.

        Raises:
            RefusedError: one of them is not open to the caller.
        """
        self.require_readable(request, reader, self.lookup.by_id(reader, schema_id).content.references)
        return self.lookup.inlined_text(reader, schema_id)


def content_of(body: Mapping[str, Any]) -> Content:
    """Read what a body submits, with the tags that it adds and removes.

    Raises:
        InvalidError: REQUEST_INVALID; RULES_INVALID; SCHEMA_INVALID, for a tag of what the schema does not define.
    """
    references = body.get("references") or []
    try:
        listed = tuple(_reference(item) for item in references)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InvalidError(
            Reason.REQUEST_INVALID, 'got "references" of another form; expected [{"name", "subject", "version"}]'
        ) from error
    content = Content(
        text=text_of(body, "schema"),
        schema_type=text_of(body, "schemaType") if body.get("schemaType") is not None else "AVRO",
        references=listed,
        metadata=validate_metadata(body.get("metadata")),
        rule_set=validate_rules(body.get("ruleSet")),
    )
    add, remove = (parse_tag_edits(body.get(one.name), one.name) for one in TAG_EDITS)
    if not (add or remove):
        return content
    if content.schema_type != SchemaType.AVRO:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f'got "{TAG_EDITS[not add].name}" for a schema of the type {content.schema_type[:40]!r}; expected AVRO',
        )
    return replace(content, text=edit_tags(content.text, add, remove))


def _reference(item: Mapping[str, Any]) -> SchemaReference:
    name, subject, version = item["name"], item["subject"], item["version"]
    if len(item) > len(_REFERENCE["properties"]) or not (
        isinstance(name, str) and isinstance(subject, str) and type(version) is int
    ):
        raise TypeError
    if not (version == -1 or 1 <= version < 2**31) or not (subject.isprintable() and name.isprintable()):
        raise ValueError
    return SchemaReference(name, subject, version)


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


def schema_response(schema_text: str) -> Response:
    """Return the response that is a schema itself."""
    return Response(schema_text, media_type="application/json")


def as_lookup_error(error: PoolError, subject: str) -> PoolError:
    """Mark the error of a schema that cannot be read as one of a look-up, which one dialect tells apart."""
    if error.reason in {Reason.SCHEMA_INVALID, Reason.SCHEMA_UNSAFE}:
        error.details["looked_up"] = subject
    return error
