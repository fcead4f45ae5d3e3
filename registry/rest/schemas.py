"""Schema handlers: by id, by GUID, all of them; contexts; health and metadata of the registry."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import override

from registry.avro.schema_types import SchemaType
from registry.database.unit_of_work import Reader
from registry.rest.handlers import (
    DELETED,
    FORMAT,
    LIMIT,
    OFFSET,
    REFERENCE_FORMAT,
    SUBJECT_PREFIX,
    TAGS,
    Handlers,
    schema_response,
)
from registry.rest.requests import header_of, subject_of
from registry.rest.response_cache import IMMUTABLE
from registry.rest.responses import page, tags_of, version_json
from registry.rest.routing import Arguments, Parameter, Route
from registry.subjects.content_json import content_json
from registry.subjects.contexts import ALL_CONTEXTS, DEFAULT, parse_context, split
from registry.subjects.fingerprint import guid as guid_of
from registry.subjects.model import StoredSchema, StoredVersion
from schemas.access import Action
from schemas.errors import ConflictError, InvalidError, Reason

__all__ = ["MAX_TEXTS", "SchemaHandlers"]

MAX_TEXTS = 32 * 1024 * 1024
"""Characters of all schemas of one list."""

_NO_ASSOCIATIONS = "nothing is associated here, so that it finds nothing"
_LISTED = (
    SUBJECT_PREFIX,
    Parameter.flag("aliases", description="return each subject's aliases"),
    DELETED,
    Parameter.flag("latestOnly", "latest_only"),
    Parameter.text("ruleType", "rule_type", description="of a rule, such as CEL or ENCRYPT"),
    Parameter.text("resourceType", "resource_type", description=_NO_ASSOCIATIONS),
    Parameter.texts("associationType", "association_types", description=_NO_ASSOCIATIONS),
    Parameter.text("lifecycle", description=_NO_ASSOCIATIONS),
    OFFSET,
    LIMIT,
)
_OF_SUBJECT = Parameter.text("subject", description="by which clients state a context; an id is one for all of them")
_BY_ID = (
    Parameter.flag("fetchMaxId", "max_id"),
    _OF_SUBJECT,
    FORMAT,
    REFERENCE_FORMAT,
    TAGS,
    Parameter.flag("includeSubjects", "with_subjects"),
)
_USES = (Parameter.text("subject", description="versions of this subject alone"), DELETED, OFFSET, LIMIT)
_RULE_LISTS = ("migrationRules", "domainRules", "encodingRules")


class SchemaHandlers(Handlers):
    """One method a call."""

    @override
    def routes(self) -> tuple[Route, ...]:
        by_id, by_guid = "/schemas/ids/{schema_id:int}", "/schemas/guids/{guid}"
        return (
            Route("GET", "/", self.root),
            Route("POST", "/", self.root),
            Route("GET", "/schemas", self.schemas, _LISTED),
            Route("GET", "/schemas/types", self.types),
            Route("GET", by_id, self.by_id, _BY_ID, empty_status=304, cached=self.by_id_from_cache),
            Route("GET", f"{by_id}/schema", self.by_id_schema, (_OF_SUBJECT, FORMAT)),
            Route("GET", f"{by_id}/subjects", self.by_id_subjects, _USES),
            Route("GET", f"{by_id}/versions", self.by_id_versions, _USES),
            Route("GET", by_guid, self.by_guid, (FORMAT,)),
            Route("GET", f"{by_guid}/ids", self.ids_of_guid),
            Route("GET", "/contexts", self.contexts, (Parameter.text("contextPrefix", "prefix"), OFFSET, LIMIT)),
            Route("DELETE", "/contexts/{context}", self.delete_context, empty_status=204),
            Route("GET", "/master_available", self.master_available),
            Route("GET", "/_health", self.health),
            Route("GET", "/v1/metadata/id", self.metadata_id),
            Route("GET", "/v1/metadata/version", self.metadata_version),
        )

    def root(self, _: Request) -> dict[str, Any]:
        """Return an empty object: the registry is there."""
        return {}

    def types(self, _: Request) -> list[str]:
        """List the types of schemas that are taken."""
        return [kind.value for kind in SchemaType]

    def schemas(
        self,
        request: Request,
        *,
        prefix: str,
        aliases: bool,
        deleted: bool,
        latest_only: bool,
        rule_type: str,
        resource_type: str,
        association_types: Sequence[str],
        lifecycle: str,
        offset: int,
        limit: int,
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
            if resource_type or any(association_types) or lifecycle:
                found = []
            part = listing.page(found, offset, limit, of=lambda item: item.subject)
            answers = self._answers(reader, part)
            if aliases:
                known = self.configuration.aliases(reader)
                for answer in answers:
                    names = [*filter(listing.visible, known.get(answer["subject"], ()))]
                    listing.record(names)
                    answer["aliases"] = names
            return JSONResponse(answers)

    def _answers(self, reader: Reader, part: Sequence[StoredVersion]) -> list[dict[str, Any]]:
        """Return the answers of versions; their texts are read a few at a time, and bounded together.

        Raises:
            InvalidError: REQUEST_INVALID, they are longer than MAX_TEXTS.
        """
        answers: list[dict[str, Any]] = []
        size = 0
        for first in range(0, len(part), 100):
            for item in self.lookup.with_texts(reader, part[first : first + 100]):
                size += len(item.content.text)
                if size > MAX_TEXTS:
                    raise InvalidError(
                        Reason.REQUEST_INVALID,
                        f"got a list of {len(part)} schemas, which are longer than {MAX_TEXTS} characters together; "
                        f"ask for {max(1, len(answers) // 2)} with `limit`, and for the others with `offset`",
                    )
                answers.append(version_json(item))
        return answers

    def by_id(
        self,
        request: Request,
        schema_id: int,
        *,
        max_id: bool,
        subject: str,
        form: str,
        references: str,
        tags: Sequence[str],
        with_subjects: bool,
    ) -> Response:
        """Return the schema of an id."""
        del references
        subject_of(subject)
        with self.read_by_id(request, lambda reader: self.lookup.by_id(reader, schema_id)) as (reader, schema):
            if not (max_id or form or tags or with_subjects):
                cached = self.responses.get(schema_id)
                if cached is None:
                    body = json.dumps(content_json(schema.content), ensure_ascii=False, separators=(",", ":")).encode()
                    cached = self.responses.put(schema_id, schema.origin, body)
                return cached.answer(header_of(request.scope, b"if-none-match"))
            answer = self._schema_json(request, reader, schema, form)
            if max_id:
                answer["maxId"] = self.lookup.highest_id(reader)
            if tags:
                answer["schemaTags"] = tags_of(schema.content, tags)
        if with_subjects:
            answer["subjects"] = self._subjects_with(request, schema_id)
        return JSONResponse(answer)

    def by_id_from_cache(self, scope: Mapping[str, Any], arguments: Arguments) -> Response | None:
        """Return what `by_id` would, where identity, permission and response are cached; else None.

        It decides as `by_id` does, each time, on attributes of the caller that are less than a second old. A read that
        leaves an entry is never permitted here.
        """
        if arguments["max_id"] or arguments["form"] or arguments["tags"] or arguments["with_subjects"]:
            return None
        if arguments["subject"]:
            subject_of(arguments["subject"])
        cached = self.responses.get(arguments["schema_id"])
        if cached is None:
            return None
        actor = self.identify_from_cache(scope)
        if actor is None or not self.access.permits_from_cache(actor, Action.SCHEMA_READ_BY_ID, cached.origin):
            return None
        return cached.answer(header_of(scope, b"if-none-match"))

    def by_id_schema(self, request: Request, schema_id: int, *, subject: str, form: str) -> Response:
        """Return an id's schema itself."""
        subject_of(subject)
        with self.read_by_id(request, lambda reader: self.lookup.by_id(reader, schema_id)) as (reader, schema):
            return schema_response(self._schema_json(request, reader, schema, form)["schema"])

    def by_id_subjects(
        self,
        request: Request,
        schema_id: int,
        *,
        subject: str,
        deleted: bool,
        offset: int,
        limit: int,
    ) -> list[str]:
        """List the subjects that have a version with an id."""
        with self.read_by_id(request, lambda reader: self.lookup.by_id(reader, schema_id)):
            pass
        return self._subjects_with(request, schema_id, subject, deleted=deleted, offset=offset, limit=limit)

    def by_id_versions(
        self,
        request: Request,
        schema_id: int,
        *,
        subject: str,
        deleted: bool,
        offset: int,
        limit: int,
    ) -> list[dict[str, Any]]:
        """List the versions that have an id."""
        with self.read_by_id(request, lambda reader: self.lookup.by_id(reader, schema_id)):
            pass
        with self.listing(request, admitted=True) as listing, self.database.read() as reader:
            wanted = subject_of(subject) if subject else ""
            uses = self.lookup.versions_by_schema_id(reader, schema_id, deleted=deleted)
            found = [one for one in uses if wanted in ("", one.subject) and listing.visible(one.subject)]
            part = listing.page(found, offset, limit, of=lambda item: item.subject)
            return [{"subject": item.subject, "version": item.number} for item in part]

    def by_guid(self, request: Request, guid: str, *, form: str) -> JSONResponse:
        """Return the schema of a GUID."""
        with self.read_by_id(request, lambda reader: self.lookup.by_guid(reader, guid)) as (reader, schema):
            return JSONResponse(
                self._schema_json(request, reader, schema, form) | {"guid": guid_of(schema.key)}, headers=IMMUTABLE
            )

    def ids_of_guid(self, request: Request, guid: str) -> list[dict[str, Any]]:
        """Return the id of a GUID; it is one for all contexts."""
        with self.read_by_id(request, lambda reader: self.lookup.by_guid(reader, guid)) as (_, schema):
            return [{"context": ".", "id": schema.id}]

    def contexts(
        self,
        request: Request,
        *,
        prefix: str,
        offset: int,
        limit: int,
    ) -> list[str]:
        """List the contexts that hold subjects, and the default one."""
        with self.listing(request) as listing, self.database.read() as reader:
            wanted = "" if prefix == ALL_CONTEXTS else prefix.removeprefix(":")
            contexts = {
                name: split(name).context
                for name in filter(listing.visible, self.lookup.subjects(reader, ALL_CONTEXTS))
            }
            named = {DEFAULT, *contexts.values()}
            listed = [name for name in self.lookup.context_names(reader) if name in named and name.startswith(wanted)]
            part = page(listed, offset, limit)
            # A context's name shows that there are subjects in it; the default one is there in any case.
            listing.record(name for name, context in contexts.items() if context != DEFAULT and context in part)
            return part

    def delete_context(self, request: Request, context: str) -> Response:
        """Drop what is configured for a context that holds no subject."""
        scope = subject_of(f":{parse_context(subject_of(context))}:")
        if not scope:
            raise InvalidError(
                Reason.SUBJECT_INVALID, "got the default context, whose settings hold everywhere; expected another"
            )
        with self.write_act(request, Action.SCHEMA_CONFIGURE, scope) as (work, entry):
            if self.lookup.subjects(work, scope, deleted=True):
                raise ConflictError(
                    Reason.CONTEXT_NOT_EMPTY, f"the context {scope} holds subjects; delete them for good first"
                )
            self.configuration.clear_scope(work, scope)
            entry.note(context=scope)
        return Response(status_code=204)

    def master_available(self, _: Request) -> JSONResponse:
        """Return that writes are taken here: there is no election, and every process takes them."""
        return JSONResponse({"master_available": True}, headers={"Cache-Control": "no-store"})

    def health(self, _: Request) -> JSONResponse:
        """Return whether the store answers.

        Raises:
            UnavailableError: it does not.
        """
        with self.database.read() as reader:
            self.lookup.highest_id(reader)
        return JSONResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})

    def metadata_id(self, _: Request) -> dict[str, Any]:
        """Return this registry's name in the form of Confluent's clusters."""
        return {"scope": {"path": [], "clusters": {"schema-registry-cluster": "exchange-pool"}}}

    def metadata_version(self, _: Request) -> dict[str, Any]:
        """Return the product's version."""
        return {"version": self.version, "commitId": ""}

    def _schema_json(self, request: Request, reader: Reader, schema: StoredSchema, form: str) -> dict[str, Any]:
        answer = content_json(schema.content)
        if form == "resolved" and schema.content.schema_type == SchemaType.AVRO and schema.content.references:
            answer["schema"] = self.inlined_text(request, reader, schema.id)
        return answer

    def _subjects_with(
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
            names = {one.subject for one in self.lookup.versions_by_schema_id(reader, schema_id, deleted=deleted)}
            if subject:
                names &= {subject_of(subject)}
            return listing.page(sorted(filter(listing.visible, names)), offset, limit, of=str)

    def _has_rules(self, reader: Reader, schema_id: int, kind: str) -> bool:
        rules = self.lookup.by_id(reader, schema_id).content.rule_set
        known = json.loads(rules) if rules else {}
        return any(rule.get("type") == kind for name in _RULE_LISTS for rule in known.get(name) or ())
