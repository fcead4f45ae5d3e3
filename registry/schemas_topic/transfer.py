"""A registry taken out, and put into another, ids and versions kept: over REST, whatever registry it is.

    taken(remote)          everything that it holds, soft-deleted versions and ids without a version too
    put(remote, snapshot)  into an empty registry, or into one that holds the same under the same ids

Putting goes subject by subject in the mode IMPORT, in which the receiving registry takes ids as they are told and never
gives one a second meaning: what contradicts it is refused, named, and everything else goes on. Repeating it changes
nothing, so that a copy that broke off is finished by starting it again. The order is the references' order; deletions
come last, in reverse, for what is referred to cannot be deleted; settings come at the very end.
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
    is_kept_id,
    kept_id,
    kept_subject,
    mode_record,
    schema_record,
)
from registry.subjects.store import MOST_GAPS
from schemas.errors import ConflictError, InvalidError, PoolError, Reason

__all__ = ["Copied", "put", "records_of", "taken"]

_EVERY = ":*:"


@dataclass(slots=True)
class Copied:
    """What became of a copy.

    Attributes:
        versions: that are there now. kept: ids without a version among them.
        refused: what the receiving registry does not take, in words.
    """

    versions: int = 0
    kept: int = 0
    refused: list[str] = field(default_factory=list)


def taken(remote: RegistryAdminClient, *, prefix: str = "") -> Snapshot:
    """Take everything out of a registry, or the subjects whose names begin with a prefix.

    Ids that have no version (any more) are asked for one by one, and kept as `registry.schemas_topic.records` says;
    not so with a prefix.

    Raises:
        PoolError: what the registry answers.
    """
    snapshot = Snapshot()
    every = sorted({*remote.subjects(prefix or _EVERY), *remote.subjects(prefix)})
    for subject in every:
        place = quote(subject, safe="")
        live = set(_found(remote, f"/subjects/{place}/versions") or ())
        for number in remote.get(f"/subjects/{place}/versions", deleted=True):
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


def put(remote: RegistryAdminClient, snapshot: Snapshot, *, told: Callable[[str], None] = lambda _: None) -> Copied:
    """Put a snapshot into a registry.

    Args:
        remote: the receiving registry; the caller may configure and register there.
        snapshot: what to put.
        told: is told each subject when its turn comes.

    Raises:
        ConflictError: VERSION_CONFLICT, when an id stands for two schemas in the snapshot itself; nothing was put.
        PoolError: the registry does not answer, or does not let the caller.
    """
    wrong = snapshot.contradictions()
    if wrong:
        raise ConflictError(Reason.VERSION_CONFLICT, "; ".join(wrong[:20]))
    ordered = snapshot.ordered()
    copied = Copied()
    importing: dict[str, str | None] = {}  # subject → its mode before, None where it had none of its own
    try:
        for version in ordered:
            if version.subject not in importing:
                told(version.subject)
                place = quote(version.subject, safe="")
                before = _found(remote, f"/mode/{place}")
                remote.call("PUT", f"/mode/{place}", {"mode": "IMPORT"}, query={"force": True})
                importing[version.subject] = before["mode"] if before else None
            if _put_version(remote, version, copied):
                copied.versions += 1
                copied.kept += is_kept_id(version.subject)
        for version in reversed(ordered):
            if version.deleted:
                _delete(remote, version, copied)
    finally:
        for subject, mode in sorted(importing.items()):
            place = f"/mode/{quote(subject, safe='')}"
            if mode is None or mode == "IMPORT":  # an import that was broken off
                _found(remote, place, method="DELETE")
            else:
                remote.call("PUT", place, {"mode": mode}, query={"force": True})
    _put_settings(remote, snapshot, copied)
    return copied


def _put_version(remote: RegistryAdminClient, version: Version, copied: Copied) -> bool:
    body: dict[str, Any] = {"schema": version.schema, "id": version.schema_id, "version": version.number}
    try:
        remote.call("POST", f"/subjects/{quote(version.subject, safe='')}/versions", {**body, **version.rest})
    except (InvalidError, ConflictError) as error:
        copied.refused.append(f"version {version.number} of {version.subject}: {error.message}")
        return False
    except PoolError as error:
        if error.details.get("code", "")[:3] != "422":
            raise
        copied.refused.append(f"version {version.number} of {version.subject}: {error.message}")
        return False
    return True


def _delete(remote: RegistryAdminClient, version: Version, copied: Copied) -> None:
    path = f"/subjects/{quote(version.subject, safe='')}/versions/{version.number}"
    steps = ({}, {"permanent": True}) if is_kept_id(version.subject) else ({},)
    for query in steps:
        try:
            remote.call("DELETE", path, query=query)
        except InvalidError as error:
            if error.reason is not Reason.NOT_FOUND:  # 404: deleted already
                copied.refused.append(f"deleting version {version.number} of {version.subject}: {error.message}")


def _put_settings(remote: RegistryAdminClient, snapshot: Snapshot, copied: Copied) -> None:
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
            copied.refused.append(f"{kind} of {subject or 'all'}: {error.message}")


def _settings(remote: RegistryAdminClient, snapshot: Snapshot, subject: str) -> None:
    place = f"/{quote(subject, safe='')}" if subject else ""
    config = _found(remote, f"/config{place}")
    if config:
        snapshot.configs[subject] = config
    mode = _found(remote, f"/mode{place}")
    if mode and (not subject or mode["mode"] != "READWRITE"):
        snapshot.modes[subject] = mode["mode"]


def _without_version(remote: RegistryAdminClient, known: set[int]) -> Iterator[Version]:
    """Return a version that stands for each id which has none."""
    last = max(known, default=0)
    # Where every version is purged no id is known, and the first one still tells of the others.
    found = _found(remote, f"/schemas/ids/{last or 1}", query={"fetchMaxId": True})
    last = max(last, int((found or {}).get("maxId", 0)))
    if last - len(known) > MOST_GAPS:
        return  # an import of ids from elsewhere; what lies between was never given
    for schema_id in range(1, last + 1):
        if schema_id in known:
            continue
        body = _found(remote, f"/schemas/ids/{schema_id}")
        if body is not None:
            place = {"subject": kept_subject(schema_id), "version": 1, "id": schema_id}
            yield kept_id(schema_id, Version.read({**body, **place}))


def _found(
    remote: RegistryAdminClient, path: str, *, method: str = "GET", query: Mapping[str, Any] | None = None
) -> Any:
    """Return an answer, None where there is nothing."""
    try:
        return remote.call(method, path, query=query)
    except InvalidError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        return None
