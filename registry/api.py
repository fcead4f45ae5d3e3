"""The registry over HTTP, as Confluent's clients, serializers and tools speak to it.

    from registry.api import create
    app = create(subjects, gate, identify=…)

Every call is identified and passes the gate, which decides and records; `Gate` has no default, so an ungated API
cannot be built. The gate chooses which acts leave an entry: every write and every read under a view's subject
(it tells who was granted what) must; other reads need not, since deserializers make them for each id they meet.

Handlers are plain functions, run in threads; the subject is locked in the store, not here.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from registry.rest import Manners, failure, plain_failure, read_body, subject_of, version_of
from registry.store import GLOBAL, Content, Reference, StoredSchema
from registry.subjects import Registered, Subjects
from schemas.access import Action, Actor
from schemas.canonical import Json
from schemas.errors import InvalidError, PoolError, Reason

__all__ = ["Entry", "Gate", "Identify", "create"]

Identify = Callable[[Request], Actor]
"""Says who calls; raises RefusedError (NO_IDENTITY, TOKEN_INVALID …) where it cannot."""

_T = TypeVar("_T")
_Flag = Annotated[bool, Query()]
_Body = Annotated[dict[str, Any], Depends(read_body)]
_FOR_EVER = {"Cache-Control": "private, max-age=86400, immutable"}  # an id never comes to mean another schema


class Entry(Protocol):
    """The audit entry of one act, while it goes on."""

    def note(self, **facts: Json) -> None:
        """Add facts to the entry. Never a record's value."""
        ...


class Gate(Protocol):
    """Decides whether an act may go on, and records it."""

    def pass_(self, actor: Actor, action: Action, resource: str) -> AbstractContextManager[Entry]:
        """Open an act; leaving the block records it.

        Args:
            actor: who acts.
            action: what for.
            resource: a subject; empty for an act on the registry as a whole.

        Raises:
            RefusedError: the actor may not.
            UnavailableError: the act cannot be recorded, so it does not happen.
        """
        ...


def create(subjects: Subjects, gate: Gate, *, identify: Identify, version: str = "1") -> FastAPI:
    """Build the application.

    Args:
        subjects: the service behind it.
        gate: lets acts pass.
        identify: says who calls.
        version: of the product, for the OpenAPI document.
    """
    app = FastAPI(title="Schema registry", version=version, docs_url=None, redoc_url=None)
    app.include_router(_Calls(subjects, gate, identify).router())
    app.add_middleware(Manners)
    app.add_exception_handler(PoolError, _pool_error)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _http_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _parameter_error)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, _unexpected)
    return app


class _Calls:
    """One method a call."""

    def __init__(self, subjects: Subjects, gate: Gate, identify: Identify) -> None:
        self._subjects = subjects
        self._configuration = subjects.configuration
        self._gate = gate
        self._identify = identify

    def router(self) -> APIRouter:
        router = APIRouter()
        for method, path, call in (
            ("GET", "/", self.root),
            ("POST", "/", self.root),
            ("GET", "/subjects", self.list_subjects),
            ("POST", "/subjects/{subject}", self.look_up),
            ("DELETE", "/subjects/{subject}", self.delete_subject),
            ("GET", "/subjects/{subject}/versions", self.list_versions),
            ("POST", "/subjects/{subject}/versions", self.register),
            ("GET", "/subjects/{subject}/versions/{version}", self.version),
            ("DELETE", "/subjects/{subject}/versions/{version}", self.delete_version),
            ("GET", "/subjects/{subject}/versions/{version}/schema", self.version_schema),
            ("GET", "/subjects/{subject}/versions/{version}/referencedby", self.referenced_by),
            ("GET", "/schemas/types", self.types),
            ("GET", "/schemas/ids/{schema_id}", self.by_id),
            ("GET", "/schemas/ids/{schema_id}/schema", self.by_id_schema),
            ("GET", "/schemas/ids/{schema_id}/subjects", self.by_id_subjects),
            ("GET", "/schemas/ids/{schema_id}/versions", self.by_id_versions),
            ("POST", "/compatibility/subjects/{subject}/versions", self.check_all),
            ("POST", "/compatibility/subjects/{subject}/versions/{version}", self.check),
            ("GET", "/config", self.config),
            ("PUT", "/config", self.configure),
            ("DELETE", "/config", self.reset_config),
            ("GET", "/config/{subject}", self.config),
            ("PUT", "/config/{subject}", self.configure),
            ("DELETE", "/config/{subject}", self.reset_config),
            ("GET", "/mode", self.mode),
            ("PUT", "/mode", self.set_mode),
            ("DELETE", "/mode", self.reset_mode),
            ("GET", "/mode/{subject}", self.mode),
            ("PUT", "/mode/{subject}", self.set_mode),
            ("DELETE", "/mode/{subject}", self.reset_mode),
        ):
            name = f"{call.__name__}_{method.lower()}{'_one' if path.endswith('{subject}') else ''}"
            router.add_api_route(path, call, methods=[method], operation_id=name, response_model=None)
        return router

    def root(self) -> dict[str, Any]:
        """Answer that the registry is there."""
        return {}

    # --- subjects and versions ---------------------------------------------------------------------------------

    def list_subjects(
        self,
        request: Request,
        *,
        prefix: Annotated[str, Query(alias="subjectPrefix")] = "",
        deleted: _Flag = False,
        deleted_only: Annotated[bool, Query(alias="deletedOnly")] = False,
        offset: int = 0,
        limit: int = -1,
    ) -> list[str]:
        """List the subjects."""
        with self._reading(request, ""):
            wanted = "" if prefix == ":*:" else prefix
            return _page(self._subjects.subjects(wanted, deleted=deleted, deleted_only=deleted_only), offset, limit)

    def look_up(self, request: Request, subject: str, body: _Body, *, deleted: _Flag = False) -> dict[str, Any]:
        """Find a schema under a subject."""
        name = subject_of(subject)
        with self._reading(request, name):
            return _version(self._subjects.look_up(name, _content(body), deleted=deleted), request)

    def register(self, request: Request, subject: str, body: _Body) -> dict[str, Any]:
        """Register a schema."""
        name, content = subject_of(subject), _content(body)
        with self._acting(request, Action.SCHEMA_REGISTER, name) as entry:
            found = self._subjects.register(name, content)
            entry.note(schema=found.schema_id, version=found.number)
        # Older Java clients fail on a property that they do not know; newer ones say that they do not.
        return {"id": found.schema_id} if not _curious(request) else _extras(found) | {"id": found.schema_id}

    def list_versions(
        self,
        request: Request,
        subject: str,
        *,
        deleted: _Flag = False,
        deleted_only: Annotated[bool, Query(alias="deletedOnly")] = False,
        offset: int = 0,
        limit: int = -1,
    ) -> list[int]:
        """List the versions of a subject."""
        name = subject_of(subject)
        with self._reading(request, name):
            return _page(self._subjects.versions(name, deleted=deleted, deleted_only=deleted_only), offset, limit)

    def version(self, request: Request, subject: str, version: str, *, deleted: _Flag = False) -> dict[str, Any]:
        """Give a version."""
        return _version(self._read_version(request, subject, version, deleted=deleted), request)

    def version_schema(self, request: Request, subject: str, version: str, *, deleted: _Flag = False) -> Response:
        """Give a version's schema itself."""
        return _raw(self._read_version(request, subject, version, deleted=deleted).content.text)

    def referenced_by(self, request: Request, subject: str, version: str) -> list[int]:
        """List the schemas that refer to a version: there are none, since none with references is taken."""
        self._read_version(request, subject, version, deleted=True)
        return []

    def delete_subject(self, request: Request, subject: str, *, permanent: _Flag = False) -> list[int]:
        """Delete a subject."""
        name = subject_of(subject)
        with self._acting(request, Action.SCHEMA_DELETE, name) as entry:
            numbers = self._subjects.delete(name, permanent=permanent)
            entry.note(versions=[*numbers], permanent=permanent)
            return numbers

    def delete_version(self, request: Request, subject: str, version: str, *, permanent: _Flag = False) -> int:
        """Delete a version."""
        name, wanted = subject_of(subject), version_of(version)
        with self._acting(request, Action.SCHEMA_DELETE, name) as entry:
            number = self._subjects.delete_version(name, wanted, permanent=permanent)
            entry.note(versions=[number], permanent=permanent)
            return number

    # --- schemas by id -----------------------------------------------------------------------------------------

    def types(self) -> list[str]:
        """List the types of schemas that are taken."""
        return ["AVRO"]

    def by_id(
        self, request: Request, schema_id: int, *, max_id: Annotated[bool, Query(alias="fetchMaxId")] = False
    ) -> JSONResponse:
        """Give what an id stands for."""
        with self._reading_id(request, schema_id) as schema:
            answer = _body(schema.content)
            return JSONResponse(answer | {"maxId": schema_id} if max_id else answer, headers=_FOR_EVER)

    def by_id_schema(self, request: Request, schema_id: int) -> Response:
        """Give an id's schema itself."""
        with self._reading_id(request, schema_id) as schema:
            return _raw(schema.content.text)

    def by_id_subjects(
        self, request: Request, schema_id: int, *, deleted: _Flag = False, offset: int = 0, limit: int = -1
    ) -> list[str]:
        """List the subjects that have a version with an id."""
        with self._reading_id(request, schema_id):
            names = {version.subject for version in self._subjects.uses(schema_id, deleted=deleted)}
            return _page(sorted(names), offset, limit)

    def by_id_versions(
        self, request: Request, schema_id: int, *, deleted: _Flag = False, offset: int = 0, limit: int = -1
    ) -> list[dict[str, Any]]:
        """List the versions that have an id."""
        with self._reading_id(request, schema_id):
            found = self._subjects.uses(schema_id, deleted=deleted)
            return _page([{"subject": item.subject, "version": item.number} for item in found], offset, limit)

    # --- compatibility -----------------------------------------------------------------------------------------

    def check(self, request: Request, subject: str, version: str, body: _Body) -> dict[str, Any]:
        """Test a schema against a version, or against all if the level is transitive."""
        name, wanted = subject_of(subject), version_of(version)
        with self._reading(request, name):
            found = self._subjects.check(name, _content(body), wanted)
            return {"is_compatible": not found, "messages": [str(item) for item in found]}

    def check_all(self, request: Request, subject: str, body: _Body) -> dict[str, Any]:
        """Test a schema against the versions that the subject's level names; a new subject has none."""
        name = subject_of(subject)
        with self._reading(request, name):
            try:
                found = self._subjects.check(name, _content(body))
            except InvalidError as error:
                if error.reason is not Reason.SUBJECT_UNKNOWN:
                    raise
                found = []
            return {"is_compatible": not found, "messages": [str(item) for item in found]}

    # --- configuration -----------------------------------------------------------------------------------------

    def config(
        self,
        request: Request,
        subject: str = GLOBAL,
        *,
        to_global: Annotated[bool, Query(alias="defaultToGlobal")] = False,
    ) -> dict[str, Any]:
        """Give what is configured for a subject, or for all."""
        name = subject_of(subject)
        with self._reading(request, name):
            whole = to_global or name == GLOBAL
            found = self._configuration.effective(name) if whole else self._configuration.own(name)
            level = found.get("compatibility") or self._configuration.level(name).value
            rest = {key: value for key, value in found.items() if key != "compatibility"}
            return {"compatibilityLevel": level} | rest

    def configure(self, request: Request, body: _Body, subject: str = GLOBAL) -> dict[str, Any]:
        """Configure a subject, or all."""
        name = subject_of(subject)
        changes = {key: value for key, value in body.items() if key != "compatibilityLevel"}
        if "compatibilityLevel" in body:
            changes.setdefault("compatibility", body["compatibilityLevel"])
        with self._acting(request, Action.SCHEMA_CONFIGURE, name) as entry:
            self._configuration.configure(name, changes)
            entry.note(configured=[*sorted(changes)])
            return changes

    def reset_config(self, request: Request, subject: str = GLOBAL) -> dict[str, Any]:
        """Drop what is configured for a subject, or for all; give what it was."""
        name = subject_of(subject)
        with self._acting(request, Action.SCHEMA_CONFIGURE, name) as entry:
            entry.note(configured=[])
            return self._configuration.reset(name)

    def mode(
        self,
        request: Request,
        subject: str = GLOBAL,
        *,
        to_global: Annotated[bool, Query(alias="defaultToGlobal")] = False,
    ) -> dict[str, Any]:
        """Give the mode of a subject, or of all."""
        name = subject_of(subject)
        with self._reading(request, name):
            return {"mode": self._configuration.mode(name, default_to_global=to_global)}

    def set_mode(self, request: Request, body: _Body, subject: str = GLOBAL) -> dict[str, Any]:
        """Set the mode of a subject, or of all."""
        name = subject_of(subject)
        with self._acting(request, Action.SCHEMA_CONFIGURE, name) as entry:
            mode = self._configuration.set_mode(name, _text(body, "mode"))
            entry.note(mode=mode.value)
            return {"mode": mode}

    def reset_mode(self, request: Request, subject: str = GLOBAL) -> dict[str, Any]:
        """Drop the mode of a subject, or of all; give what it was."""
        name = subject_of(subject)
        with self._acting(request, Action.SCHEMA_CONFIGURE, name) as entry:
            entry.note(mode=None)
            return {"mode": self._configuration.reset_mode(name)}

    # --- what the calls share ----------------------------------------------------------------------------------

    def _acting(self, request: Request, action: Action, subject: str) -> AbstractContextManager[Entry]:
        return self._gate.pass_(self._identify(request), action, subject)

    def _reading(self, request: Request, subject: str) -> AbstractContextManager[Entry]:
        return self._acting(request, Action.SCHEMA_READ, subject)

    @contextmanager
    def _reading_id(self, request: Request, schema_id: int) -> Iterator[StoredSchema]:
        actor = self._identify(request)
        schema = self._subjects.by_id(schema_id)
        with self._gate.pass_(actor, Action.SCHEMA_READ, schema.origin):
            yield schema

    def _read_version(self, request: Request, subject: str, version: str, *, deleted: bool) -> Registered:
        name, wanted = subject_of(subject), version_of(version)
        with self._reading(request, name):
            return self._subjects.version(name, wanted, deleted=deleted)


def _content(body: Mapping[str, Any]) -> Content:
    references = body.get("references") or []
    try:
        listed = tuple(Reference(str(item["name"]), str(item["subject"]), int(item["version"])) for item in references)
    except (TypeError, KeyError, ValueError) as error:
        raise InvalidError(
            Reason.REQUEST_INVALID, 'got "references" of another form; expected [{"name", "subject", "version"}]'
        ) from error
    return Content(
        text=_text(body, "schema"),
        kind=_text(body, "schemaType") if body.get("schemaType") is not None else "AVRO",
        references=listed,
        metadata=_object(body, "metadata"),
        rule_set=_object(body, "ruleSet"),
    )


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        got = "nothing" if value is None else f"a value of type {type(value).__name__}"
        raise InvalidError(Reason.REQUEST_INVALID, f'got {got} for "{name}" in the body; expected a string')
    return value


def _object(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InvalidError(Reason.REQUEST_INVALID, f'got "{name}" that is no object; expected an object')
    return json.dumps(value, ensure_ascii=False)


def _body(content: Content) -> dict[str, Any]:
    answer: dict[str, Any] = {"schema": content.text}
    if content.kind != "AVRO":
        answer["schemaType"] = content.kind
    if content.metadata is not None:
        answer["metadata"] = json.loads(content.metadata)
    if content.rule_set is not None:
        answer["ruleSet"] = json.loads(content.rule_set)
    return answer


def _version(found: Registered, request: Request) -> dict[str, Any]:
    answer = {"subject": found.subject, "version": found.number, "id": found.schema_id} | _body(found.content)
    return answer | {"guid": found.guid} if _curious(request) else answer


def _extras(found: Registered) -> dict[str, Any]:
    answer = _body(found.content) | {"version": found.number, "guid": found.guid}
    del answer["schema"]  # unchanged, so the caller has it
    return answer


def _curious(request: Request) -> bool:
    return request.headers.get("confluent-accept-unknown-properties", "").lower() == "true"


def _raw(text: str) -> Response:
    return Response(text, media_type="application/json")


def _page(items: list[_T], offset: int, limit: int) -> list[_T]:
    start = max(offset, 0)
    return items[start:] if limit < 0 else items[start : start + limit]


async def _pool_error(_: Request, error: PoolError) -> Response:
    return failure(error)


async def _http_error(_: Request, error: HTTPException) -> Response:
    return plain_failure(error.status_code)


async def _parameter_error(_: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    place, name = first["loc"][0], first["loc"][-1]
    if place == "path":
        return plain_failure(404)
    return plain_failure(422, f"got another {name} than expected: {first['msg']}")


async def _unexpected(_: Request, __: Exception) -> Response:
    # The text could hold anything; the trace goes to the log.
    return JSONResponse({"error_code": 50001, "message": "Internal error; the registry's log says more"}, 500)
