"""Records of a `_schemas` topic in the format of Confluent's registry and Karapace. Pure.

    key                                                      value
    {"keytype":"SCHEMA","subject":s,"version":n,"magic":1}   subject, version, id, schema, deleted …; null: purged
    {"keytype":"CONFIG","subject":s,"magic":0}               {"compatibilityLevel": …}; null: none
    {"keytype":"MODE","subject":s,"magic":0}                 {"mode": …}; null: none
    {"keytype":"DELETE_SUBJECT","subject":s,"magic":0}       {"subject":s,"version":n}: softly, up to n
    {"keytype":"CLEAR_SUBJECT","subject":s,"magic":0}        {"subject":s}: permanently
    {"keytype":"NOOP","magic":0}                             nothing

The subject null is for the global settings. The topic is compacted by key, so the bytes of a key are part of the
format: its members have a fixed order, without white space; otherwise a tombstone would not delete its record.

Reserved ids extend the format. A purged version is a tombstone, which also deletes the schema of its id; a registry
restored from the topic would assign that id to the next schema, while topics still have records framed with it. So for
every id without a version the topic has a softly deleted version under a subject of its own in the context `.ids`
(`:.ids:42`, version 1). Another registry sees a deleted subject in an unused context; this one reads it as a reserved
id.

A file has one record on each line: `{"key": …, "value": …}`, or `key<TAB>value` as Kafka's console consumer prints.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from registry.subjects.fingerprint import canonical_text
from schemas.errors import InvalidError, Reason

__all__ = [
    "RESERVED_IDS",
    "Record",
    "Snapshot",
    "Version",
    "config_record",
    "fold",
    "is_reserved_id",
    "mode_record",
    "read_lines",
    "reserved_id",
    "reserved_subject",
    "schema_record",
    "write_line",
]

RESERVED_IDS = ":.ids:"
"""Prefix of the subjects that reserve ids without a version."""

_BODY = ("schemaType", "references", "metadata", "ruleSet")


@dataclass(frozen=True, slots=True)
class Record:
    """Record: key and value as JSON text; the value None is a tombstone."""

    key: str
    value: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Version of a subject in a topic or in another registry.

    Attributes:
        subject, number, schema_id: of the version, as there.
        schema: the text.
        rest: schemaType, references, metadata and ruleSet, if present.
        deleted: softly.
    """

    subject: str
    number: int
    schema_id: int
    schema: str
    rest: Mapping[str, Any] = field(default_factory=dict)
    deleted: bool = False

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> "Version":
        """Parse the value of a SCHEMA record, or a registry's response for a version.

        Raises:
            InvalidError: REQUEST_INVALID, a member is missing or invalid.
        """
        try:
            return cls(
                subject=_text(value["subject"]),
                number=_number(value["version"]),
                schema_id=_number(value["id"]),
                schema=_text(value["schema"]),
                rest={name: value[name] for name in _BODY if value.get(name) not in (None, [], "AVRO")},
                deleted=value.get("deleted") is True,
            )
        except (KeyError, TypeError) as error:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got a version of another form ({str(error)[:60]}); expected subject, version, id and schema",
            ) from error

    @property
    def content(self) -> tuple[str, str]:
        """Content of its id: canonical text of the schema, and the rest as JSON."""
        text = self.schema
        if self.rest.get("schemaType", "AVRO") == "AVRO":
            # Registration refuses an invalid schema; it is not checked here.
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
                text = canonical_text(json.loads(text))
        return text, json.dumps(self.rest, sort_keys=True)


@dataclass(slots=True)
class Snapshot:
    """State of a registry after the last record of a topic.

    Attributes:
        versions: by subject and number. configs, modes: by subject; "" for the global ones.
    """

    versions: dict[tuple[str, int], Version] = field(default_factory=dict)
    configs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    modes: dict[str, str] = field(default_factory=dict)

    def contradictions(self) -> list[str]:
        """Return the ids with two different contents, as messages; such a topic cannot be imported."""
        first_versions: dict[int, Version] = {}
        found = []
        for version in self.versions.values():
            first = first_versions.setdefault(version.schema_id, version)
            if first.content != version.content:
                found.append(
                    f"the id {version.schema_id} stands for two schemas: version {first.number} of {first.subject}, "
                    f"and version {version.number} of {version.subject}"
                )
        return found

    def in_dependency_order(self) -> list[Version]:
        """Return the versions, each after those that it refers to and after earlier ones of its subject.

        Raises:
            InvalidError: REQUEST_INVALID, when references are circular or dangling.
        """
        remaining = sorted(self.versions.values(), key=lambda one: (one.schema_id, one.subject, one.number))
        done: set[tuple[str, int]] = set()
        ordered: list[Version] = []
        while remaining:
            later = []
            for version in remaining:
                needed = [(str(item["subject"]), int(item["version"])) for item in version.rest.get("references", ())]
                if done.issuperset(needed):
                    done.add((version.subject, version.number))
                    ordered.append(version)
                else:
                    later.append(version)
            if len(later) == len(remaining):
                raise InvalidError(
                    Reason.REQUEST_INVALID,
                    f"version {later[0].number} of {later[0].subject} refers to what is not there, or to itself",
                )
            remaining = later
        return ordered


def schema_record(version: Version) -> Record:
    """Return the record of a version."""
    value = {
        "subject": version.subject,
        "version": version.number,
        "id": version.schema_id,
        **version.rest,
        "schema": version.schema,
        "deleted": version.deleted,
    }
    return Record(schema_key(version.subject, version.number), _json(value))


def schema_key(subject: str, number: int) -> str:
    """Return the key of a version."""
    return _json({"keytype": "SCHEMA", "subject": subject, "version": number, "magic": 1})


def config_record(subject: str, config: Mapping[str, Any] | None) -> Record:
    """Return the record of a configuration; None = removed; the subject "" = the global one."""
    value = None
    if config:
        members = dict(config)
        members["compatibilityLevel"] = members.pop("compatibility", members.get("compatibilityLevel"))
        value = _json({name: each for name, each in members.items() if each is not None})
    return Record(_settings_key("CONFIG", subject), value)


def mode_record(subject: str, mode: str | None) -> Record:
    """Return the record of a mode; None = removed; the subject "" = the global one."""
    return Record(_settings_key("MODE", subject), None if mode is None else _json({"mode": mode}))


def reserved_id(schema_id: int, version: Version) -> Version:
    """Return the version that reserves an id."""
    return Version(
        subject=reserved_subject(schema_id),
        number=1,
        schema_id=schema_id,
        schema=version.schema,
        rest=version.rest,
        deleted=True,
    )


def reserved_subject(schema_id: int) -> str:
    """Return the subject that reserves an id."""
    return f"{RESERVED_IDS}{schema_id}"


def is_reserved_id(subject: str) -> bool:
    """Return whether a subject reserves an id."""
    return subject.startswith(RESERVED_IDS)


def fold(records: Iterable[Record]) -> Snapshot:
    """Apply all records of a topic, from its first, and return the resulting state.

    Raises:
        InvalidError: REQUEST_INVALID, with the number (from 1) of a record that is not of this format.
    """
    snapshot = Snapshot()
    for number, record in enumerate(records, 1):
        try:
            _apply(snapshot, json.loads(record.key), None if record.value is None else json.loads(record.value))
        except (ValueError, KeyError, TypeError, AttributeError, InvalidError) as error:
            reason = error.message if isinstance(error, InvalidError) else f"{type(error).__name__}: {str(error)[:60]}"
            raise InvalidError(
                Reason.REQUEST_INVALID, f"record {number} is none of a _schemas topic ({reason})"
            ) from error
    return snapshot


def _apply(snapshot: Snapshot, key: Mapping[str, Any], value: Mapping[str, Any] | None) -> None:
    kind = key["keytype"]
    if kind == "SCHEMA":
        subject, number = _text(key["subject"]), _number(key["version"])
        if value is None:
            snapshot.versions.pop((subject, number), None)
        else:
            snapshot.versions[subject, number] = Version.parse({**value, "subject": subject, "version": number})
    elif kind in ("CONFIG", "MODE"):
        _set(snapshot, kind, _text(key.get("subject") or ""), value)
    elif kind in ("DELETE_SUBJECT", "CLEAR_SUBJECT"):
        if value is not None:
            _delete(snapshot, _text(key["subject"]), _number(value["version"]) if kind[0] == "D" else None)
    elif kind not in ("NOOP", "CONTEXT"):
        raise InvalidError(Reason.REQUEST_INVALID, f"got the keytype {str(kind)[:40]!r}")


def _set(snapshot: Snapshot, kind: str, subject: str, value: Mapping[str, Any] | None) -> None:
    settings: dict[str, Any] = snapshot.configs if kind == "CONFIG" else snapshot.modes
    if value is None:
        settings.pop(subject, None)
    else:
        settings[subject] = dict(value) if kind == "CONFIG" else _text(value["mode"])


def _delete(snapshot: Snapshot, subject: str, last: int | None) -> None:
    """Delete a subject softly up to a version; permanently, if *last* is None."""
    keys = [key for key in snapshot.versions if key[0] == subject]
    if last is None:
        for key in keys:
            del snapshot.versions[key]
        snapshot.configs.pop(subject, None)
        snapshot.modes.pop(subject, None)
        return
    for key in keys:
        if key[1] <= last:
            snapshot.versions[key] = replace(snapshot.versions[key], deleted=True)


def write_line(record: Record) -> str:
    """Return a record as a line of a file."""
    return f'{{"key":{record.key},"value":{record.value or "null"}}}\n'


def read_lines(lines: Iterable[str]) -> Iterator[Record]:
    """Parse records from lines; empty lines are skipped. Only a line feed ends a line: texts contain other line ends.

    Raises:
        InvalidError: REQUEST_INVALID, with the number of the line.
    """
    for number, line in enumerate(lines, 1):
        text = line.strip("\r\n")
        if not text.strip():
            continue
        try:
            if "\t" in text:
                key, _, value = text.partition("\t")
                yield Record(_json(json.loads(key)), None if value in ("null", "") else _json(json.loads(value)))
                continue
            members = json.loads(text)
            key, value = members["key"], members["value"]
            yield Record(_as_text(key), None if value is None else _as_text(value))
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f'line {number} is no record; expected {{"key": …, "value": …}}, or a key, a tab and a value',
            ) from error


def _as_text(value: Any) -> str:
    """Return the JSON text of a line's member: an object, or a string with the JSON text of one."""
    return _json(json.loads(value) if isinstance(value, str) else value)


def _settings_key(kind: str, subject: str) -> str:
    return _json({"keytype": kind, "subject": subject or None, "magic": 0})


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a string, got {type(value).__name__}")
    return value


def _number(value: Any) -> int:
    if type(value) is not int or not 0 < value < 2**31:
        raise TypeError(f"expected a number from 1, got {type(value).__name__}")
    return value
