"""Calls on subjects and their versions: list, look up, register, delete, compare."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from registry.avro.compatibility import Incompatibility
from registry.avro.schema_types import SchemaType
from registry.database.unit_of_work import Reader
from registry.rest.handlers import (
    Body,
    Calls,
    Flag,
    Format,
    Limit,
    Normalize,
    Offset,
    ReferenceFormat,
    accepts_unknown_properties,
    looked_up,
    number_of,
    raw,
    route,
)
from registry.rest.requests import subject_of, version_of
from registry.rest.responses import extras_of, page, tags_of, version_of_subject
from registry.subjects.contexts import EVERY
from registry.subjects.versions import RegisteredVersion
from schemas.access import Action
from schemas.errors import InvalidError, Reason

__all__ = ["SubjectCalls"]

_Tags = Annotated[list[str], Query(alias="findTags", description="tell where these tags stand; * = any")]
_DeletedOnly = Annotated[bool, Query(alias="deletedOnly")]


class SubjectCalls(Calls):
    """One method a call."""

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter()
        for method, path, call in (
            ("GET", "/subjects", self.list_subjects),
            ("POST", "/subjects/{subject}", self.look_up),
            ("DELETE", "/subjects/{subject}", self.delete_subject),
            ("GET", "/subjects/{subject}/metadata", self.with_metadata),
            ("GET", "/subjects/{subject}/versions", self.list_versions),
            ("POST", "/subjects/{subject}/versions", self.register),
            ("GET", "/subjects/{subject}/versions/{version}", self.version_),
            ("DELETE", "/subjects/{subject}/versions/{version}", self.delete_version),
            ("GET", "/subjects/{subject}/versions/{version}/schema", self.version_schema),
            ("GET", "/subjects/{subject}/versions/{version}/referencedby", self.referenced_by),
            ("POST", "/compatibility/subjects/{subject}/versions", self.check_all),
            ("POST", "/compatibility/subjects/{subject}/versions/{version}", self.check),
        ):
            route(router, method, path, call)
        return router

    def list_subjects(
        self,
        request: Request,
        *,
        prefix: Annotated[str, Query(alias="subjectPrefix")] = EVERY,
        deleted: Flag = False,
        deleted_only: _DeletedOnly = False,
        offset: Offset = 0,
        limit: Limit = -1,
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
        body: Body,
        *,
        normalize: Normalize = False,
        deleted: Flag = False,
        form: Format = "",
    ) -> dict[str, Any]:
        """Find a schema under a subject."""
        name = self.resolve_alias(subject)
        with self.read_under(request, name) as reader:
            try:
                content = self.read_submission(request, name, body)
                found = self.registration.find(reader, name, content, deleted=deleted, normalize=normalize)
            except InvalidError as error:
                raise looked_up(error, name) from error
            return self._document(reader, found, request, form)

    def register(
        self,
        request: Request,
        subject: str,
        body: Body,
        *,
        normalize: Normalize = False,
        form: Format = "",
        force: Annotated[bool, Query(description="no effect: nothing is passed over that could be forced")] = False,
    ) -> JSONResponse:
        """Register a schema.

        The answer tells the schema only to clients that take unknown properties, and only where it is another text than
        the one submitted: its normal form, or the one that *form* asks for.
        """
        del force
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
                text = self._document(reader, found, request, form)["schema"]
            extra = extras_of(found) | ({"schema": text} if text != content.text else {})
        return JSONResponse(extra | {"id": found.schema_id})

    def list_versions(
        self,
        request: Request,
        subject: str,
        *,
        deleted: Flag = False,
        deleted_only: _DeletedOnly = False,
        as_negative: Annotated[bool, Query(alias="deletedAsNegative")] = False,
        offset: Offset = 0,
        limit: Limit = -1,
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
        deleted: Flag = False,
        form: Format = "",
        references: ReferenceFormat = "",
        tags: _Tags = [],  # noqa: B006 - FastAPI copies it
    ) -> JSONResponse:
        """Return a version."""
        del references
        with self._read_version(request, subject, version, deleted=deleted) as (reader, found):
            answer = self._document(reader, found, request, form)
        if tags:
            answer["schemaTags"] = tags_of(found.content, tags)
        return JSONResponse(answer)

    def version_schema(
        self, request: Request, subject: str, version: str, *, deleted: Flag = False, form: Format = ""
    ) -> Response:
        """Return a version's schema itself."""
        with self._read_version(request, subject, version, deleted=deleted) as (reader, found):
            return raw(self._document(reader, found, request, form)["schema"])

    def referenced_by(
        self,
        request: Request,
        subject: str,
        version: str,
        *,
        deleted: Flag = False,
        offset: Offset = 0,
        limit: Limit = -1,
    ) -> list[int]:
        """List the ids of schemas that refer to a version."""
        with self._read_version(request, subject, version, deleted=True) as (reader, found):
            return page(self.lookup.referrers(reader, found.subject, found.number, deleted=deleted), offset, limit)

    def with_metadata(
        self,
        request: Request,
        subject: str,
        *,
        key: Annotated[list[str], Query()] = [],  # noqa: B006 - FastAPI copies it
        value: Annotated[list[str], Query()] = [],  # noqa: B006 - FastAPI copies it
        deleted: Flag = False,
        form: Format = "",
    ) -> dict[str, Any]:
        """Return the latest version whose metadata has these properties; each key goes with the value at its place."""
        name = self.resolve_alias(subject)
        if len(key) != len(value):
            raise InvalidError(
                Reason.REQUEST_INVALID, f"got {len(key)} keys and {len(value)} values; expected a value for each key"
            )
        with self.read_under(request, name) as reader:
            wanted = dict(zip(key, value, strict=True))
            try:
                found = self.lookup.with_properties(reader, name, wanted, deleted=deleted)
            except InvalidError as error:
                # Confluent's Python client encodes them twice.
                again = {unquote(one): unquote(other) for one, other in wanted.items()}
                if error.reason is not Reason.VERSION_UNKNOWN or again == wanted:
                    raise
                found = self.lookup.with_properties(reader, name, again, deleted=deleted)
            return self._document(reader, found, request, form)

    def delete_subject(self, request: Request, subject: str, *, permanent: Flag = False) -> list[int]:
        """Delete a subject."""
        name = subject_of(subject)
        with self.write_act(request, Action.SCHEMA_DELETE, name) as (work, entry):
            numbers = self.deletion.delete(work, name, permanent=permanent)
            entry.note(versions=[*numbers], permanent=permanent)
            return numbers

    def delete_version(self, request: Request, subject: str, version: str, *, permanent: Flag = False) -> int:
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
        body: Body,
        *,
        normalize: Normalize = False,
        verbose: Flag = True,
    ) -> dict[str, Any]:
        """Test a schema against a version, or against all if the level is transitive."""
        name, wanted = self.resolve_alias(subject), version_of(version)
        with self.read_under(request, name) as reader:
            content = self.read_submission(request, name, body)
            found = self.registration.check(reader, name, content, wanted, normalize=normalize)
            return self._verdict(request, reader, name, found, verbose=verbose)

    def check_all(
        self, request: Request, subject: str, body: Body, *, normalize: Normalize = False, verbose: Flag = True
    ) -> dict[str, Any]:
        """Test a schema against the versions that the subject's level names; a new subject has none."""
        name = self.resolve_alias(subject)
        with self.read_under(request, name) as reader:
            try:
                found = self.registration.check(
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
        for number in {item.version for item in found}:  # the messages tell what is in them
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

    def _document(self, reader: Reader, found: RegisteredVersion, request: Request, form: str) -> dict[str, Any]:
        answer = version_of_subject(found, curious=accepts_unknown_properties(request))
        if form == "resolved" and found.content.kind == SchemaType.AVRO and found.content.references:
            answer["schema"] = self.written_in(request, reader, found.schema_id)
        return answer
