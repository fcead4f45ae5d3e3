"""Transfer of a registry over REST: export from any registry, import with the same ids and versions.

    export_snapshot(remote)            everything, softly deleted versions and ids without a version too
    import_snapshot(remote, snapshot)  into an empty registry, or into one that has the same under the same ids

The import sets the mode IMPORT subject by subject; in this mode the receiving registry accepts given ids and never
assigns an id to a second content: it refuses a version that contradicts its own, which is reported, and the import goes
on. It is idempotent, so an interrupted import is repeated. Versions are imported in the order of their references;
deletions follow in reverse order, since a referenced version cannot be deleted; settings come last.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

from registry.client.admin import RegistryAdminClient
from registry.schemas_topic.records import (
    Record,
    Snapshot,
    Version,
    config_record,
    is_reserved_id,
    mode_record,
    reserved_id,
    reserved_subject,
    schema_record,
)
from registry.subjects.contexts import ALL_CONTEXTS, GLOBAL_CONTEXT, qualify
from registry.subjects.store import MAX_GAPS
from schemas.errors import ConflictError, InvalidError, PoolError, Reason

__all__ = ["ImportReport", "export_snapshot", "import_snapshot", "records_of"]

_T = TypeVar("_T")
_ALL = qualify(GLOBAL_CONTEXT, "")


@dataclass(slots=True)
class ImportReport:
    """Result of an import.

    Attributes:
        versions: number that the receiving registry has now. reserved: of these, ids without a version.
        refused: what the receiving registry refused, as messages.
    """

    versions: int = 0
    reserved: int = 0
    refused: list[str] = field(default_factory=list)


def export_snapshot(remote: RegistryAdminClient, *, prefix: str = "") -> Snapshot:
    """Return the state of a registry, or of the subjects whose names begin with a prefix.

    Without a prefix, ids without a version are read one by one, and included as reserved ids
    (`registry.schemas_topic.records`).

    Raises:
        PoolError: the registry's error.
    """
    snapshot = Snapshot()
    subjects = sorted({*remote.subjects(prefix or ALL_CONTEXTS), *remote.subjects(prefix)})
    for subject in subjects:
        quoted = quote(subject, safe="")
        live = set(_found(remote, f"/subjects/{quoted}/versions") or ())
        for number in remote.get(f"/subjects/{quoted}/versions", deleted=True):
            version = Version.parse({**remote.version(subject, number, deleted=True), "deleted": number not in live})
            snapshot.versions[version.subject, version.number] = version
        _read_settings(remote, snapshot, subject)
    _read_settings(remote, snapshot, "")
    if not prefix:
        for version in _reserved_ids(remote, {one.schema_id for one in snapshot.versions.values()}):
            snapshot.versions[version.subject, version.number] = version
    return snapshot


def records_of(snapshot: Snapshot) -> Iterator[Record]:
    """Return a snapshot as records: settings first, then versions in an order in which they can be registered."""
    for subject, config in sorted(snapshot.configs.items()):
        yield config_record(subject, config)
    for subject, mode in sorted(snapshot.modes.items()):
        yield mode_record(subject, mode)
    for version in snapshot.in_dependency_order():
        yield schema_record(version)


def import_snapshot(remote: RegistryAdminClient, snapshot: Snapshot) -> ImportReport:
    """Import a snapshot into a registry.

    Args:
        remote: the receiving registry; the caller may configure and register there.
        snapshot: to import.

    Raises:
        ConflictError: VERSION_CONFLICT, when an id has two contents in the snapshot itself; nothing was imported.
        PoolError: the registry does not answer, or refuses the caller.
    """
    contradictions = snapshot.contradictions()
    if contradictions:
        raise ConflictError(Reason.VERSION_CONFLICT, "; ".join(contradictions[:20]))
    ordered = snapshot.in_dependency_order()
    report = ImportReport()
    previous_modes: dict[str, str | None] = {}  # by subject; None = it had none of its own
    refused: set[str] = set()  # subjects that take no versions: the receiving registry has aliases of these names
    try:
        for version in ordered:
            if version.subject not in previous_modes and version.subject not in refused:
                try:
                    previous_modes[version.subject] = _open_for_import(remote, version.subject)
                except InvalidError as error:
                    refused.add(version.subject)
                    report.refused.append(f"versions of {version.subject}: {error.message}")
            if version.subject not in refused and _import_version(remote, version, report):
                report.versions += 1
                report.reserved += is_reserved_id(version.subject)
        for version in reversed(ordered):
            if version.deleted and version.subject not in refused:
                _delete(remote, version, report)
    finally:
        for subject, mode in sorted(previous_modes.items()):
            path = f"/mode/{quote(subject, safe='')}"
            if mode is None or mode == "IMPORT":  # left by an interrupted import
                _found(remote, path, method="DELETE")
            else:
                remote.call("PUT", path, {"mode": mode}, query={"force": True})
    _import_settings(remote, snapshot, report)
    return report


def _open_for_import(remote: RegistryAdminClient, subject: str) -> str | None:
    """Set a subject's mode to IMPORT; return the one that it had, None if it had none of its own."""
    path = f"/mode/{quote(subject, safe='')}"
    before = _found(remote, path)
    remote.call("PUT", path, {"mode": "IMPORT"}, query={"force": True})
    return before["mode"] if before else None


def _import_version(remote: RegistryAdminClient, version: Version, report: ImportReport) -> bool:
    body: dict[str, Any] = {"schema": version.schema, "id": version.schema_id, "version": version.number}
    try:
        remote.call("POST", f"/subjects/{quote(version.subject, safe='')}/versions", {**body, **version.rest})
    except (InvalidError, ConflictError) as error:
        report.refused.append(f"version {version.number} of {version.subject}: {error.message}")
        return False
    except PoolError as error:
        if error.details.get("code", "")[:3] != "422":
            raise
        report.refused.append(f"version {version.number} of {version.subject}: {error.message}")
        return False
    return True


def _delete(remote: RegistryAdminClient, version: Version, report: ImportReport) -> None:
    path = f"/subjects/{quote(version.subject, safe='')}/versions/{version.number}"
    steps = ({}, {"permanent": True}) if is_reserved_id(version.subject) else ({},)
    for query in steps:
        try:
            remote.call("DELETE", path, query=query)
        except InvalidError as error:
            if error.reason is not Reason.NOT_FOUND:  # 404: deleted already
                report.refused.append(f"deleting version {version.number} of {version.subject}: {error.message}")


def _import_settings(remote: RegistryAdminClient, snapshot: Snapshot, report: ImportReport) -> None:
    bodies: list[tuple[str, str, dict[str, Any]]] = []
    configs = _with_one_global("config", snapshot.configs, report)
    modes = _with_one_global("mode", snapshot.modes, report)
    for subject, config in sorted(configs.items()):
        body = dict(config)
        body["compatibility"] = body.pop("compatibilityLevel", body.get("compatibility"))
        bodies.append(("config", subject, body))
    bodies += [("mode", subject, {"mode": mode}) for subject, mode in sorted(modes.items())]
    for kind, subject, body in bodies:
        try:
            remote.call("PUT", f"/{kind}/{quote(subject, safe='')}" if subject else f"/{kind}", body)
        except InvalidError as error:
            report.refused.append(f"{kind} of {subject or 'all'}: {error.message}")


def _with_one_global(kind: str, settings: Mapping[str, _T], report: ImportReport) -> Mapping[str, _T]:
    """Return settings without those of all contexts, if there are others of the default one: here both are for all."""
    if "" not in settings or settings.get(_ALL) in (None, settings[""]):
        return settings
    report.refused.append(f"{kind} of {_ALL}: that of the default context is another, and is for all contexts here")
    return {subject: one for subject, one in settings.items() if subject != _ALL}


def _read_settings(remote: RegistryAdminClient, snapshot: Snapshot, subject: str) -> None:
    suffix = f"/{quote(subject, safe='')}" if subject else ""
    config = _found(remote, f"/config{suffix}")
    if config:
        snapshot.configs[subject] = config
    mode = _found(remote, f"/mode{suffix}")
    if mode and (not subject or mode["mode"] != "READWRITE"):
        snapshot.modes[subject] = mode["mode"]


def _reserved_ids(remote: RegistryAdminClient, with_version: set[int]) -> Iterator[Version]:
    """Return a version that reserves each id without one."""
    last = max(with_version, default=0)
    # If every version was purged, there is no such id, but the first id still leads to the highest one.
    found = _found(remote, f"/schemas/ids/{last or 1}", query={"fetchMaxId": True})
    last = max(last, int((found or {}).get("maxId", 0)))
    if last - len(with_version) > MAX_GAPS:
        return  # ids of another registry were imported; those between were never assigned
    for schema_id in range(1, last + 1):
        if schema_id in with_version:
            continue
        body = _found(remote, f"/schemas/ids/{schema_id}")
        if body is not None:
            members = {"subject": reserved_subject(schema_id), "version": 1, "id": schema_id}
            yield reserved_id(schema_id, Version.parse({**body, **members}))


def _found(
    remote: RegistryAdminClient, path: str, *, method: str = "GET", query: Mapping[str, Any] | None = None
) -> Any:
    """Return the response body; None for not found."""
    try:
        return remote.call(method, path, query=query)
    except InvalidError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        return None
