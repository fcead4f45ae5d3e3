"""Cache of compiled views, one for each version of a grant: what a grant releases, computed column by column.

A version of a grant never changes, so its view is cached without a time limit (LRU). Views are compiled in this process
and applied in an engine process where there is one.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import takewhile
from types import MappingProxyType

from typing_extensions import override

from exchange.access.grants.exposure import FieldMask, SchemaMasks
from exchange.access.view.derive import derive_schema, mask_type_of
from exchange.access.view.mask import default_mask
from exchange.access.view.view import ViewSpec, compile_view
from exchange.engines.process_pool import ProcessPool
from exchange.records.engine_tasks import apply_view, json_values
from exchange.records.ports import GrantViews
from exchange.records.release import ViewOutput
from exchange.records.writer_schemas import WriterSchemas
from registry.avro.fields import resolved_json
from registry.avro.parser import parse
from registry.database.unit_of_work import Database, Reader, UnitOfWork
from registry.governance import classification
from registry.subjects.registration import Registration
from schemas.access import Grant
from schemas.errors import InvalidError
from schemas.names import Topic
from schemas.record import Packed

__all__ = ["ViewCache"]


_CACHE_SIZE = 1_000
_CACHED_SPECS = 10_000  # of grants; those of one view share their texts


class ViewCache(GrantViews):
    """Applies the views of grants, and registers their schemas."""

    def __init__(
        self,
        database: Database,
        schemas: WriterSchemas,
        registration: Registration,
        workers: ProcessPool,
        *,
        alarm: Callable[[str], None],
    ) -> None:
        self._schemas = schemas
        self._registration = registration
        self._database = database
        self._workers = workers
        self._alarm = alarm
        self._cached: OrderedDict[tuple[str, int], ViewSpec] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, reader: Reader, grant: Grant) -> None:
        """Check that a grant's fields, masks and filter suit every writer schema of its topic.

        Raises:
            InvalidError: FIELD_UNKNOWN, MASK_UNKNOWN, FILTER_INVALID, SCHEMA_INCOMPATIBLE.
        """
        compile_view(
            _view_spec(grant, self._derive(reader, grant), 0, self._schemas.latest(reader, grant.topic)[1]),
            self._schemas.read_writers(reader, grant.topic),
        )

    def masks(self, reader: Reader, topic: Topic) -> SchemaMasks:
        """Return how the latest schema of a topic masks its fields.

        The mask of a field is the one that the newest version with that field has, a deleted version too: to delete a
        version with a stricter mask is no way around the two persons who lower one.

        Raises:
            InvalidError: SUBJECT_UNKNOWN, SCHEMA_UNCLASSIFIED.
        """
        latest, text = self._schemas.latest(reader, topic)
        masks = dict(_masks_of(text))
        newer = list(takewhile(lambda each: each != latest, reversed(self._schemas.version_ids(reader, topic))))
        for schema_id in reversed(newer):
            try:
                deleted = _masks_of(self._schemas.text(reader, schema_id))
            except InvalidError:  # deleted before the catalogue had the resource: it need not be a schema of records
                continue
            masks |= {field: mask for field, mask in deleted.items() if field in masks}
        return masks

    def register(self, work: UnitOfWork, grant: Grant) -> int:
        """Derive a grant's output schema, register it under its hidden subject, and return its id."""
        return self._registration.register_view(work, grant.id, grant.version, self._derive(work, grant))

    @override
    def apply(self, grant: Grant, values: Sequence[bytes | None]) -> ViewOutput:
        return self._applied(grant.topic, self._spec(grant), values)

    def kept(self, grant: Grant, values: Sequence[bytes | None]) -> Sequence[bool]:
        """Return of which values a grant keeps the row, or would keep it where it is only asked for.

        Raises:
            InvalidError: as `check`.
        """
        if grant.view_schema_id is None:  # of a request no schema is registered yet
            with self._database.read() as reader:
                latest = self._schemas.latest(reader, grant.topic)[1]
                spec = _view_spec(grant, self._derive(reader, grant), 0, latest)
        else:
            spec = self._spec(grant)
        return [bool(one) for one in self._applied(grant.topic, spec, values).selected]

    @override
    def json_values(self, grant: Grant, values: Packed) -> Packed:
        return json_values(self._workers, self._spec(grant).output, values)

    @override
    def schema_text(self, reader: Reader, schema_id: int) -> str:
        return self._schemas.text(reader, schema_id)

    @override
    def definition(self, grant: Grant) -> Hashable:
        return self._spec(grant)

    @override
    def prepare(self, reader: Reader, grants: Sequence[Grant]) -> None:
        resources: dict[Topic, str] = {}
        for grant in grants:
            if self._known(grant) is not None:
                continue
            with suppress(InvalidError):  # raised where the view is applied
                if grant.topic not in resources:
                    resources[grant.topic] = self._schemas.latest(reader, grant.topic)[1]
                self._read_spec(reader, grant, resources[grant.topic])

    def _applied(self, topic: Topic, spec: ViewSpec, values: Sequence[bytes | None]) -> ViewOutput:
        result = self._schemas.with_writers(topic, lambda writers: apply_view(self._workers, spec, writers, values))
        if result.alarm:
            self._alarm(result.alarm)
        return ViewOutput(selected=result.kept, values=result.values)

    def _spec(self, grant: Grant) -> ViewSpec:
        """Return the definition of a grant version's view; it never changes."""
        spec = self._known(grant)
        if spec is not None:
            return spec
        with self._database.read() as reader:
            return self._read_spec(reader, grant, self._schemas.latest(reader, grant.topic)[1])

    def _known(self, grant: Grant) -> ViewSpec | None:
        key = (grant.id, grant.version)
        with self._lock:
            spec = self._cached.get(key)
            if spec is not None:
                self._cached.move_to_end(key)
            return spec

    def _read_spec(self, reader: Reader, grant: Grant, resource: str) -> ViewSpec:
        output_id = grant.view_schema_id or 0
        spec = _shared(_view_spec(grant, self._schemas.text(reader, output_id), output_id, resource))
        with self._lock:
            self._cached[grant.id, grant.version] = spec
            while len(self._cached) > _CACHED_SPECS:
                self._cached.popitem(last=False)
        return spec

    def _derive(self, reader: Reader, grant: Grant) -> str:
        resource = parse(self._schemas.latest(reader, grant.topic)[1])
        return derive_schema(resource, grant.fields, grant.masks, f"{resource.fullname}View")


def _view_spec(grant: Grant, output: str, output_id: int, resource: str) -> ViewSpec:
    return ViewSpec(
        output=output,
        output_id=output_id,
        masks=grant.masks,
        row_filter=grant.row_filter,
        resource=resource,
    )


@lru_cache(maxsize=_CACHE_SIZE)
def _shared(spec: ViewSpec) -> ViewSpec:
    """Return the first one of equal definitions: many grants have the same view, and each text is long."""
    return spec


@lru_cache(maxsize=_CACHE_SIZE)
def _masks_of(text: str) -> SchemaMasks:
    resource = parse(text)
    classified = classification.require_classification(resolved_json(resource))
    stated = classification.shown_by_default(classified)
    kinds = {field.name: mask_type_of(field) for field in resource.fields}
    return MappingProxyType(
        {
            field.path: FieldMask(
                stated=stated[field.path], default=default_mask(stated[field.path], kinds[field.path]), zh=field.zh
            )
            for field in classified
            if field.path in kinds
        }
    )
