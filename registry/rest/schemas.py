"""Calls on schemas whatever their subject: by id, by GUID, all of them; contexts; and how the registry is."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from registry.avro.schema_types import SchemaType
from registry.database.unit_of_work import Reader
from registry.rest.handlers import Calls, Flag, Format, Limit, Offset, ReferenceFormat, raw, route
from registry.rest.requests import subject_of
from registry.rest.response_cache import CACHED
from registry.rest.responses import page, tags_of, version_of_subject
from registry.subjects.content_json import content_json
from registry.subjects.contexts import DEFAULT, EVERY, context_of, split
from registry.subjects.fingerprint import guid as guid_of
from registry.subjects.model import StoredSchema
from schemas.access import Action
from schemas.errors import ConflictError, InvalidError, Reason

__all__ = ["SchemaCalls"]

_Tags = Annotated[list[str], Query(alias="findTags", description="tell where these tags stand; * = any")]
_Subject = Annotated[str, Query(description="versions of this subject alone")]
_NONE = "nothing is associated here, so that it finds nothing"
_FOR_EVER = {"Cache-Control": CACHED}  # an id never comes to mean another schema
_RULE_LISTS = ("migrationRules", "domainRules", "encodingRules")


class SchemaCalls(Calls):
    """One method a call."""

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter()
        for method, path, call in (
            ("GET", "/", self.root),
            ("POST", "/", self.root),
            ("GET", "/schemas", self.schemas),
            ("GET", "/schemas/types", self.types),
            ("GET", "/schemas/ids/{schema_id}", self.by_id),
            ("GET", "/schemas/ids/{schema_id}/schema", self.by_id_schema),
            ("GET", "/schemas/ids/{schema_id}/subjects", self.by_id_subjects),
            ("GET", "/schemas/ids/{schema_id}/versions", self.by_id_versions),
            ("GET", "/schemas/guids/{guid}", self.by_guid),
            ("GET", "/schemas/guids/{guid}/ids", self.ids_of_guid),
            ("GET", "/contexts", self.contexts),
            ("DELETE", "/contexts/{context}", self.delete_context),
            ("GET", "/master_available", self.master_available),
            ("GET", "/_health", self.health),
            ("GET", "/v1/metadata/id", self.metadata_id),
            ("GET", "/v1/metadata/version", self.metadata_version),
        ):
            statuses = {self.delete_context: 204, self.by_id: 304}
            route(router, method, path, call, also=statuses.get(call))
        return router

    def root(self) -> dict[str, Any]:
        """Answer that the registry is there."""
        return {}

    def types(self) -> list[str]:
        """List the types of schemas that are taken."""
        return [kind.value for kind in SchemaType]

    def schemas(
        self,
        request: Request,
        *,
        prefix: Annotated[str, Query(alias="subjectPrefix")] = EVERY,
        aliases: Annotated[bool, Query(description="tell each subject's aliases")] = False,
        deleted: Flag = False,
        latest_only: Annotated[bool, Query(alias="latestOnly")] = False,
        rule_type: Annotated[str, Query(alias="ruleType", description="of a rule, such as CEL or ENCRYPT")] = "",
        resource_type: Annotated[str, Query(alias="resourceType", description=_NONE)] = "",
        association_type: Annotated[list[str], Query(alias="associationType", description=_NONE)] = [],  # noqa: B006 - FastAPI copies it
        lifecycle: Annotated[str, Query(description=_NONE)] = "",
        offset: Offset = 0,
        limit: Limit = -1,
    ) -> JSONResponse:
        """List versions with their schemas.

        The last three filters ask for associations of subjects with resources, which this registry does not keep: they
        find nothing, as they would where nothing is associated.
        """
        with self.listing(request) as listing, self.database.read() as reader:
            listed = self.lookup.all_versions(reader, prefix, deleted=deleted, latest_only=latest_only)
            found = [item for item in listed if listing.visible(item.subject)]
            if rule_type:
                found = [item for item in found if self._has_rules(reader, item.schema_id, rule_type)]
            if resource_type or any(association_type) or lifecycle:
                found = []
            part = listing.page(found, offset, limit, of=lambda item: item.subject)
            answers = [version_of_subject(item) for item in self.lookup.with_texts(reader, part)]
            if aliases:
                known = self.configuration.aliases(reader)
                for answer in answers:
                    names = [*filter(listing.visible, known.get(answer["subject"], ()))]
                    listing.record(names)
                    answer["aliases"] = names
            return JSONResponse(answers)

    def by_id(
        self,
        request: Request,
        schema_id: int,
        *,
        max_id: Annotated[bool, Query(alias="fetchMaxId")] = False,
        form: Format = "",
        references: ReferenceFormat = "",
        tags: _Tags = [],  # noqa: B006 - FastAPI copies it
        with_subjects: Annotated[bool, Query(alias="includeSubjects")] = False,
    ) -> Response:
        """Return what an id stands for."""
        del references
        with self.read_by_id(request, lambda reader: self.lookup.by_id(reader, schema_id)) as (reader, schema):
            if not (max_id or form or tags or with_subjects):
                return self._ready(request, schema_id, schema)
            answer = self._formed(request, reader, schema, form)
            if max_id:
                answer["maxId"] = self.lookup.highest_id(reader)
            if tags:
                answer["schemaTags"] = tags_of(schema.content, tags)
        if with_subjects:
            answer["subjects"] = self._using(request, schema_id)
        return JSONResponse(answer)

    def _ready(self, request: Request, schema_id: int, schema: StoredSchema) -> Response:
        headers = _FOR_EVER | {"ETag": f'"{schema_id}"'}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        body = self.ready.held(schema_id)
        if body is None:
            body = json.dumps(content_json(schema.content), ensure_ascii=False, separators=(",", ":")).encode()
            self.ready.keep(schema_id, schema.origin, body)
        return Response(body, media_type="application/json", headers=headers)

    def by_id_schema(self, request: Request, schema_id: int, *, form: Format = "") -> Response:
        """Return an id's schema itself."""
        with self.read_by_id(request, lambda reader: self.lookup.by_id(reader, schema_id)) as (reader, schema):
            return raw(self._formed(request, reader, schema, form)["schema"])

    def by_id_subjects(
        self,
        request: Request,
        schema_id: int,
        *,
        subject: _Subject = "",
        deleted: Flag = False,
        offset: Offset = 0,
        limit: Limit = -1,
    ) -> list[str]:
        """List the subjects that have a version with an id."""
        with self.read_by_id(request, lambda reader: self.lookup.by_id(reader, schema_id)):
            pass
        return self._using(request, schema_id, subject, deleted=deleted, offset=offset, limit=limit)

    def by_id_versions(
        self,
        request: Request,
        schema_id: int,
        *,
        subject: _Subject = "",
        deleted: Flag = False,
        offset: Offset = 0,
        limit: Limit = -1,
    ) -> list[dict[str, Any]]:
        """List the versions that have an id."""
        with self.read_by_id(request, lambda reader: self.lookup.by_id(reader, schema_id)):
            pass
        with self.listing(request, admitted=True) as listing, self.database.read() as reader:
            wanted = subject_of(subject) if subject else ""
            uses = self.lookup.uses(reader, schema_id, deleted=deleted)
            found = [one for one in uses if wanted in ("", one.subject) and listing.visible(one.subject)]
            part = listing.page(found, offset, limit, of=lambda item: item.subject)
            return [{"subject": item.subject, "version": item.number} for item in part]

    def by_guid(self, request: Request, guid: str, *, form: Format = "") -> JSONResponse:
        """Return what a GUID stands for."""
        with self.read_by_id(request, lambda reader: self.lookup.by_guid(reader, guid)) as (reader, schema):
            return JSONResponse(
                self._formed(request, reader, schema, form) | {"guid": guid_of(schema.key)}, headers=_FOR_EVER
            )

    def ids_of_guid(self, request: Request, guid: str) -> list[dict[str, Any]]:
        """Return the id of a GUID; it is one for all contexts."""
        with self.read_by_id(request, lambda reader: self.lookup.by_guid(reader, guid)) as (_, schema):
            return [{"context": ".", "id": schema.id}]

    def contexts(
        self,
        request: Request,
        *,
        prefix: Annotated[str, Query(alias="contextPrefix")] = "",
        offset: Offset = 0,
        limit: Limit = -1,
    ) -> list[str]:
        """List the contexts that hold subjects, and the default one."""
        with self.listing(request) as listing, self.database.read() as reader:
            wanted = "" if prefix == EVERY else prefix.removeprefix(":")
            held = {name: split(name).context for name in filter(listing.visible, self.lookup.subjects(reader, EVERY))}
            named = {DEFAULT, *held.values()}
            listed = [name for name in self.lookup.context_names(reader) if name in named and name.startswith(wanted)]
            part = page(listed, offset, limit)
            # A context's name tells that there are subjects in it; the default one is there in any case.
            listing.record(name for name, context in held.items() if context != DEFAULT and context in part)
            return part

    def delete_context(self, request: Request, context: str) -> Response:
        """Drop what is configured for a context that holds no subject."""
        scope = subject_of(f":{context_of(subject_of(context))}:")
        if not scope:
            raise InvalidError(
                Reason.SUBJECT_INVALID, "got the default context, whose settings hold everywhere; expected another"
            )
        with self.write_act(request, Action.SCHEMA_CONFIGURE, scope) as (work, entry):
            if self.lookup.subjects(work, scope, deleted=True):
                raise ConflictError(
                    Reason.CONTEXT_NOT_EMPTY, f"the context {scope} holds subjects; delete them for good first"
                )
            self.configuration.forget_scope(work, scope)
            entry.note(context=scope)
        return Response(status_code=204)

    def master_available(self) -> JSONResponse:
        """Say that writes are taken here: there is no election, and every process takes them."""
        return JSONResponse({"master_available": True}, headers={"Cache-Control": "no-store"})

    def health(self) -> JSONResponse:
        """Return whether the store answers.

        Raises:
            UnavailableError: it does not.
        """
        with self.database.read() as reader:
            self.lookup.highest_id(reader)
        return JSONResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})

    def metadata_id(self) -> dict[str, Any]:
        """Name this registry in the way of Confluent's clusters."""
        return {"scope": {"path": [], "clusters": {"schema-registry-cluster": "exchange-pool"}}}

    def metadata_version(self) -> dict[str, Any]:
        """Return the product's version."""
        return {"version": self.version, "commitId": ""}

    def _formed(self, request: Request, reader: Reader, schema: StoredSchema, form: str) -> dict[str, Any]:
        answer = content_json(schema.content)
        if form == "resolved" and schema.content.kind == SchemaType.AVRO and schema.content.references:
            answer["schema"] = self.written_in(request, reader, schema.id)
        return answer

    def _using(
        self,
        request: Request,
        schema_id: int,
        subject: str = "",
        *,
        deleted: bool = False,
        offset: int = 0,
        limit: int = -1,
    ) -> list[str]:
        """Return the subjects that have a version with an id."""
        with self.listing(request, admitted=True) as listing, self.database.read() as reader:
            names = {one.subject for one in self.lookup.uses(reader, schema_id, deleted=deleted)}
            if subject:
                names &= {subject_of(subject)}
            return listing.page(sorted(filter(listing.visible, names)), offset, limit, of=str)

    def _has_rules(self, reader: Reader, schema_id: int, kind: str) -> bool:
        rules = self.lookup.by_id(reader, schema_id).content.rule_set
        known = json.loads(rules) if rules else {}
        return any(rule.get("type") == kind for name in _RULE_LISTS for rule in known.get(name) or ())
