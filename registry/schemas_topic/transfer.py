"""Transfer of a registry to another one over REST, with its ids and versions: export and import.

    export_snapshot(remote)           everything in it, softly deleted versions and ids without a version too
    import_snapshot(remote, snapshot) into an empty registry, or one that has the same schemas under the same ids

The import proceeds subject by subject in the mode IMPORT, in which the receiving registry accepts given ids and never
assigns one twice: what contradicts it is refused and reported, and the import continues. It is idempotent, so that an
interrupted one is completed by repeating it. Versions follow those that they refer to; deletions come after them, in
reverse order, because a referenced version cannot be deleted; settings are last.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
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
from registry.subjects.store import MAX_GAPS
from schemas.errors import ConflictError, InvalidError, PoolError, Reason

__all__ = ["ImportReport", "export_snapshot", "import_snapshot", "records_of"]

_EVERY = ":*:"


@dataclass(slots=True)
class ImportReport:
    """Result of an import.

    Attributes:
        versions: number in the receiving registry. reserved: ids without a version among them.
        refused: what the receiving registry did not accept, as sentences.
    """

    versions: int = 0
    reserved: int = 0
    refused: list[str] = field(default_factory=list)


def export_snapshot(remote: RegistryAdminClient, *, prefix: str = "") -> Snapshot:
    """Return everything in a registry, or the subjects whose names begin with a prefix.

    Without a prefix, ids without a version are queried one by one, and reserved (`registry.schemas_topic.records`).

    Raises:
        PoolError: what the registry answers.
    """
    snapshot = Snapshot()
    every = sorted({*remote.subjects(prefix or _EVERY), *remote.subjects(prefix)})
    for subject in every:
        path = f"/subjects/{quote(subject, safe='')}/versions"
        live = set(_found(remote, path) or ())
        for number in remote.get(path, deleted=True):
            version = Version.read({**remote.version(subject, number, deleted=True), "deleted": number not in live})
            snapshot.versions[version.subject, version.number] = version
        _settings(remote, snapshot, subject)
    _settings(remote, snapshot, "")
    if not prefix:
        for version in _without_version(remote, {one.schema_id for one in snapshot.versions.values()}):
            snapshot.versions[version.subject, version.number] = version
    return snapshot


def records_of(snapshot: Snapshot) -> Iterator[Record]:
    """Return a snapshot as records: settings first, then versions in an order in which they can be registered."""
    for subject, config in sorted(snapshot.configs.items()):
        yield config_record(subject, config)
    for subject, mode in sorted(snapshot.modes.items()):
        yield mode_record(subject, mode)
    for version in snapshot.ordered():
        yield schema_record(version)


def import_snapshot(
    remote: RegistryAdminClient, snapshot: Snapshot, *, progress: Callable[[str], None] = lambda _: None
) -> ImportReport:
    """Import a snapshot into a registry.

    Args:
        remote: the receiving registry; the caller may configure and register there.
        snapshot: what to import.
        progress: is called with each subject before it is imported.

    Raises:
        ConflictError: VERSION_CONFLICT, an id has two schemas in the snapshot itself; nothing was imported.
        PoolError: the registry does not answer, or does not permit it.
    """
    wrong = snapshot.contradictions()
    if wrong:
        raise ConflictError(Reason.VERSION_CONFLICT, "; ".join(wrong[:20]))
    ordered = snapshot.ordered()
    report = ImportReport()
    importing: dict[str, str | None] = {}  # subject → its mode before, None where it had none of its own
    try:
        for version in ordered:
            if version.subject not in importing:
                progress(version.subject)
                path = f"/mode/{quote(version.subject, safe='')}"
                before = _found(remote, path)
                remote.call("PUT", path, {"mode": "IMPORT"}, query={"force": True})
                importing[version.subject] = before["mode"] if before else None
            if _put_version(remote, version, report):
                report.versions += 1
                report.reserved += is_reserved_id(version.subject)
        for version in reversed(ordered):
            if version.deleted:
                _delete(remote, version, report)
    finally:
        for subject, mode in sorted(importing.items()):
            path = f"/mode/{quote(subject, safe='')}"
            if mode is None or mode == "IMPORT":  # an interrupted import
                _found(remote, path, method="DELETE")
            else:
                remote.call("PUT", path, {"mode": mode}, query={"force": True})
    _put_settings(remote, snapshot, report)
    return report


def _put_version(remote: RegistryAdminClient, version: Version, report: ImportReport) -> bool:
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


def _put_settings(remote: RegistryAdminClient, snapshot: Snapshot, report: ImportReport) -> None:
    bodies: list[tuple[str, str, dict[str, Any]]] = []
    for subject, config in sorted(snapshot.configs.items()):
        body = dict(config)
        body["compatibility"] = body.pop("compatibilityLevel", body.get("compatibility"))
        bodies.append(("config", subject, body))
    bodies += [("mode", subject, {"mode": mode}) for subject, mode in sorted(snapshot.modes.items())]
    for kind, subject, body in bodies:
        try:
            remote.call("PUT", f"/{kind}/{quote(subject, safe='')}" if subject else f"/{kind}", body)
        except InvalidError as error:
            report.refused.append(f"{kind} of {subject or 'all'}: {error.message}")


def _settings(remote: RegistryAdminClient, snapshot: Snapshot, subject: str) -> None:
    suffix = f"/{quote(subject, safe='')}" if subject else ""
    config = _found(remote, f"/config{suffix}")
    if config:
        snapshot.configs[subject] = config
    mode = _found(remote, f"/mode{suffix}")
    if mode and (not subject or mode["mode"] != "READWRITE"):
        snapshot.modes[subject] = mode["mode"]


def _without_version(remote: RegistryAdminClient, known: set[int]) -> Iterator[Version]:
    """Return a version for each id that has none, to reserve it."""
    last = max(known, default=0)
    # If every version is purged no id is known; the answer for the first one contains the highest id.
    found = _found(remote, f"/schemas/ids/{last or 1}", query={"fetchMaxId": True})
    last = max(last, int((found or {}).get("maxId", 0)))
    if last - len(known) > MAX_GAPS:
        return  # imported ids; those in between were never assigned
    for schema_id in range(1, last + 1):
        if schema_id in known:
            continue
        body = _found(remote, f"/schemas/ids/{schema_id}")
        if body is not None:
            key = {"subject": reserved_subject(schema_id), "version": 1, "id": schema_id}
            yield reserved_id(schema_id, Version.read({**body, **key}))


def _found(
    remote: RegistryAdminClient, path: str, *, method: str = "GET", query: Mapping[str, Any] | None = None
) -> Any:
    """Return an answer, None for 404."""
    try:
        return remote.call(method, path, query=query)
    except InvalidError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        return None
