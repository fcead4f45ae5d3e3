"""Subject handlers: list, look up, register, delete and compare subjects and their versions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import override

from registry.avro.compatibility import RESERVED_FIELD, Incompatibility
from registry.avro.schema_types import SchemaType
from registry.database.unit_of_work import Reader
from registry.rest.handlers import (
    DELETED,
    FORMAT,
    LIMIT,
    NORMALIZE,
    OFFSET,
    REFERENCE_FORMAT,
    SUBJECT_PREFIX,
    SUBMITTED,
    TAG_EDITS,
    TAGS,
    Handlers,
    accepts_unknown_properties,
    as_lookup_error,
    number_of,
    schema_response,
)
from registry.rest.requests import subject_of, version_of
from registry.rest.responses import page, registration_json, tags_of, version_json
from registry.rest.routing import Member, Parameter, Route
from registry.subjects.versions import RegisteredVersion
from schemas.access import Action
from schemas.errors import InvalidError, Reason

__all__ = ["SubjectHandlers"]

_DELETED_ONLY = Parameter.flag("deletedOnly", "deleted_only", also="deleted_only")
_AS_NEGATIVE = Parameter.flag("deletedAsNegative", "as_negative")
_PERMANENT = Parameter.flag("permanent")
_FORCE = Parameter.flag("force", description="true is refused: no check of a registration can be passed over")
_REGISTERED = (
    *SUBMITTED,
    *TAG_EDITS,
    Member(name="id", schema={"type": "integer", "description": "in another registry; in the mode IMPORT alone"}),
    Member(
        name="version",
        schema={"type": "integer", "description": "must be the next one; in the mode IMPORT, that in another registry"},
    ),
    Member(name="propagateSchemaTags", schema={"type": "boolean", "description": "true is refused"}),
)
_VERBOSE = Parameter.flag("verbose", default=True)


class SubjectHandlers(Handlers):
    """One method a call."""

    @override
    def routes(self) -> tuple[Route, ...]:
        subject, compatibility = "/subjects/{subject}", "/compatibility/subjects/{subject}/versions"
        versions, version = f"{subject}/versions", f"{subject}/versions/{{version}}"
        return (
            Route("GET", "/subjects", self.list_subjects, (SUBJECT_PREFIX, DELETED, _DELETED_ONLY, OFFSET, LIMIT)),
            Route("POST", subject, self.look_up, (NORMALIZE, DELETED, FORMAT), body=SUBMITTED),
            Route("DELETE", subject, self.delete_subject, (_PERMANENT,)),
            Route(
                "GET",
                f"{subject}/metadata",
                self.with_metadata,
                (Parameter.texts("key", "keys"), Parameter.texts("value", "values"), DELETED, FORMAT),
            ),
            Route("GET", versions, self.list_versions, (DELETED, _DELETED_ONLY, _AS_NEGATIVE, OFFSET, LIMIT)),
            Route("POST", versions, self.register, (NORMALIZE, FORMAT, _FORCE), body=_REGISTERED),
            Route("GET", version, self.version_, (DELETED, FORMAT, REFERENCE_FORMAT, TAGS)),
            Route("DELETE", version, self.delete_version, (_PERMANENT,)),
            Route("GET", f"{version}/schema", self.version_schema, (DELETED, FORMAT)),
            Route("GET", f"{version}/referencedby", self.referenced_by, (DELETED, OFFSET, LIMIT)),
            Route("POST", compatibility, self.check_all, (NORMALIZE, _VERBOSE), body=SUBMITTED),
            Route("POST", f"{compatibility}/{{version}}", self.check, (NORMALIZE, _VERBOSE), body=SUBMITTED),
        )

    def list_subjects(
        self,
        request: Request,
        *,
        prefix: str,
        deleted: bool,
        deleted_only: bool,
        offset: int,
        limit: int,
    ) -> JSONResponse:
        """List the subjects."""
        with self.listing(request) as listing:
            with self.database.read() as reader:
                found = self.lookup.subjects(reader, prefix, deleted=deleted, deleted_only=deleted_only)
            return JSONResponse(listing.page([*filter(listing.visible, found)], offset, limit, of=str))

    def look_up(
        self,
        request: Request,
        subject: str,
        body: dict[str, Any],
        *,
        normalize: bool,
        deleted: bool,
        form: str,
    ) -> dict[str, Any]:
        """Find a schema under a subject."""
        name = self.resolve_alias(subject)
        with self.read_under(request, name) as reader:
            try:
                content = self.read_submission(request, name, body)
                found = self.registration.find_version(reader, name, content, deleted=deleted, normalize=normalize)
            except InvalidError as error:
                raise as_lookup_error(error, name) from error
            return self._version_json(reader, found, request, form)

    def register(
        self,
        request: Request,
        subject: str,
        body: dict[str, Any],
        *,
        normalize: bool,
        form: str,
        force: bool,
    ) -> JSONResponse:
        """Register a schema.

        The response has the schema only for clients that take unknown properties, and only where its text is not the
        one submitted: its normal form, or the one that *form* asks for.
        """
        for refused, stated in (("force", force), ("propagateSchemaTags", body.get("propagateSchemaTags"))):
            if stated not in (None, False):
                raise InvalidError(
                    Reason.REQUEST_INVALID, f'got "{refused}", which no registration here does; leave it out'
                )
        name = self.resolve_alias(subject)
        content = self.read_submission(request, name, body)
        given_id, given_number = number_of(body, "id"), number_of(body, "version")
        with self.write_act(request, Action.SCHEMA_REGISTER, name) as (work, entry):
            found = self.registration.register(
                work, name, content, schema_id=given_id, number=given_number, normalize=normalize
            )
            entry.note(schema=found.schema_id, version=found.number)
        extra: dict[str, Any] = {}
        if accepts_unknown_properties(request):
            with self.database.read() as reader:
                text = self._version_json(reader, found, request, form)["schema"]
            extra = registration_json(found) | ({"schema": text} if text != body["schema"] else {})
        return JSONResponse(extra | {"id": found.schema_id})

    def list_versions(
        self,
        request: Request,
        subject: str,
        *,
        deleted: bool,
        deleted_only: bool,
        as_negative: bool,
        offset: int,
        limit: int,
    ) -> JSONResponse:
        """List the versions of a subject."""
        name = self.resolve_alias(subject)
        with self.read_under(request, name) as reader:
            found = self.lookup.stored_versions(reader, name, deleted=deleted or as_negative, deleted_only=deleted_only)
            numbers = [-item.number if item.deleted and as_negative else item.number for item in found]
            return JSONResponse(page(numbers, offset, limit))

    def version_(
        self,
        request: Request,
        subject: str,
        version: str,
        *,
        deleted: bool,
        form: str,
        references: str,
        tags: Sequence[str],
    ) -> JSONResponse:
        """Return a version."""
        del references
        with self._read_version(request, subject, version, deleted=deleted) as (reader, found):
            answer = self._version_json(reader, found, request, form)
        if tags:
            answer["schemaTags"] = tags_of(found.content, tags)
        return JSONResponse(answer)

    def version_schema(self, request: Request, subject: str, version: str, *, deleted: bool, form: str) -> Response:
        """Return a version's schema itself."""
        with self._read_version(request, subject, version, deleted=deleted) as (reader, found):
            return schema_response(self._version_json(reader, found, request, form)["schema"])

    def referenced_by(
        self,
        request: Request,
        subject: str,
        version: str,
        *,
        deleted: bool,
        offset: int,
        limit: int,
    ) -> list[int]:
        """List the ids of schemas that refer to a version."""
        with self._read_version(request, subject, version, deleted=True) as (reader, found):
            return page(self.lookup.referrer_ids(reader, found.subject, found.number, deleted=deleted), offset, limit)

    def with_metadata(
        self,
        request: Request,
        subject: str,
        *,
        keys: Sequence[str],
        values: Sequence[str],
        deleted: bool,
        form: str,
    ) -> dict[str, Any]:
        """Return the latest version whose metadata has these properties; each key goes with the value at its place."""
        name = self.resolve_alias(subject)
        if len(keys) != len(values):
            raise InvalidError(
                Reason.REQUEST_INVALID, f"got {len(keys)} keys and {len(values)} values; expected a value for each key"
            )
        with self.read_under(request, name) as reader:
            wanted = dict(zip(keys, values, strict=True))
            try:
                found = self.lookup.version_with_properties(reader, name, wanted, deleted=deleted)
            except InvalidError as error:
                # Confluent's Python client encodes them twice.
                again = {unquote(one): unquote(other) for one, other in wanted.items()}
                if error.reason is not Reason.VERSION_UNKNOWN or again == wanted:
                    raise
                found = self.lookup.version_with_properties(reader, name, again, deleted=deleted)
            return self._version_json(reader, found, request, form)

    def delete_subject(self, request: Request, subject: str, *, permanent: bool) -> list[int]:
        """Delete a subject."""
        name = subject_of(subject)
        with self.write_act(request, Action.SCHEMA_DELETE, name) as (work, entry):
            numbers = self.deletion.delete(work, name, permanent=permanent)
            entry.note(versions=[*numbers], permanent=permanent)
            return numbers

    def delete_version(self, request: Request, subject: str, version: str, *, permanent: bool) -> int:
        """Delete a version."""
        name, wanted = subject_of(subject), version_of(version)
        with self.write_act(request, Action.SCHEMA_DELETE, name) as (work, entry):
            number = self.deletion.delete_version(work, name, wanted, permanent=permanent)
            entry.note(versions=[number], permanent=permanent)
            return number

    def check(
        self,
        request: Request,
        subject: str,
        version: str,
        body: dict[str, Any],
        *,
        normalize: bool,
        verbose: bool,
    ) -> dict[str, Any]:
        """Test a schema against a version, or against all if the level is transitive."""
        name, wanted = self.resolve_alias(subject), version_of(version)
        with self.read_under(request, name) as reader:
            content = self.read_submission(request, name, body)
            found = self.registration.find_incompatibilities(reader, name, content, wanted, normalize=normalize)
            return self._verdict(request, reader, name, found, verbose=verbose)

    def check_all(
        self, request: Request, subject: str, body: dict[str, Any], *, normalize: bool, verbose: bool
    ) -> dict[str, Any]:
        """Test a schema against the versions that the subject's level names; a new subject has none."""
        name = self.resolve_alias(subject)
        with self.read_under(request, name) as reader:
            try:
                found = self.registration.find_incompatibilities(
                    reader, name, self.read_submission(request, name, body), normalize=normalize
                )
            except InvalidError as error:
                if error.reason is not Reason.SUBJECT_UNKNOWN:
                    raise
                found = []
            return self._verdict(request, reader, name, found, verbose=verbose)

    def _verdict(
        self, request: Request, reader: Reader, subject: str, found: list[Incompatibility], *, verbose: bool
    ) -> dict[str, Any]:
        answer: dict[str, Any] = {"is_compatible": not found}
        if not verbose:
            return answer
        for number in {item.version for item in found if item.kind != RESERVED_FIELD}:  # the messages quote them
            self.require_readable(
                request, reader, self.lookup.version(reader, subject, number, deleted=True).content.references
            )
        return answer | {"messages": [str(item) for item in found]}

    @contextmanager
    def _read_version(
        self, request: Request, subject: str, version: str, *, deleted: bool
    ) -> Iterator[tuple[Reader, RegisteredVersion]]:
        name, wanted = self.resolve_alias(subject), version_of(version)
        with self.read_under(request, name) as reader:
            yield reader, self.lookup.version(reader, name, wanted, deleted=deleted)

    def _version_json(self, reader: Reader, found: RegisteredVersion, request: Request, form: str) -> dict[str, Any]:
        answer = version_json(found, details=accepts_unknown_properties(request))
        if form == "resolved" and found.content.schema_type == SchemaType.AVRO and found.content.references:
            answer["schema"] = self.inlined_text(request, reader, found.schema_id)
        return answer
