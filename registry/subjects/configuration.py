"""Configuration of a subject, of a context or of all: compatibility, modes, contracts, aliases.

    the subject's own  >  its context's (`:.police:`)  >  the global one  >  the registry's default

The configuration object is Confluent's, stored whole. The registry uses `compatibility`, `compatibilityGroup`,
`alias`, `normalize`, `validateFields`, `validateNewSchemas` and the default and override contracts; what only clients
use is stored and returned unchanged.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from registry.avro.compatibility import Compatibility
from registry.database.unit_of_work import Reader, UnitOfWork
from registry.subjects.contexts import normal, scopes
from registry.subjects.data_contracts import checked_metadata, checked_rules
from registry.subjects.model import GLOBAL, Settings
from registry.subjects.store import Change, SubjectReader, SubjectWriter
from schemas.errors import InvalidError, Reason, RefusedError

__all__ = ["Configuration", "Mode"]

_FLAGS = ("normalize", "validateFields", "validateNewSchemas", "validateRules")
_TEXTS = ("alias", "compatibilityGroup", "compatibilityPolicy")
_METADATA = ("defaultMetadata", "overrideMetadata")
_RULES = ("defaultRuleSet", "overrideRuleSet")
_MAX_TEXT = 500
_CACHE_SECONDS = 1.0


class Mode(StrEnum):
    """What may be written under a subject."""

    READWRITE = "READWRITE"
    READONLY = "READONLY"
    READONLY_OVERRIDE = "READONLY_OVERRIDE"  # for all, with priority over a subject's own mode
    IMPORT = "IMPORT"  # schemas of another registry, with their ids and versions, not compared with each other
    FORWARD = "FORWARD"  # another registry is the leader: nothing is written here

    @property
    def writable(self) -> bool:
        """Whether anything may be changed."""
        return self in (Mode.READWRITE, Mode.IMPORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class _CachedSettings:
    """What every call needs of all settings.

    Attributes:
        at: start of the query. changes: number of changes made by this process until then.
    """

    at: float
    changes: int
    aliases: Mapping[str, str]
    normalize: Mapping[str, bool]


class Configuration:
    """Reads and changes settings.

    Args:
        reader, writer: where they are stored.
        level: the default compatibility level.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        reader: SubjectReader,
        writer: SubjectWriter,
        *,
        level: Compatibility = Compatibility.BACKWARD,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._level = level
        self._clock = clock
        self._lock = threading.Lock()
        self._cached: _CachedSettings | None = None
        self._refreshing = False
        self._changes = 0  # made by this process, which take effect at once

    def level(self, reader: Reader, subject: str, change: Change | None = None) -> Compatibility:
        """Return the effective level of a subject.

        Args:
            reader: to look up with.
            subject: its name; `GLOBAL` for the global level.
            change: the subject's change, if the caller has its lock.
        """
        return Compatibility(self.effective(reader, subject, change)["compatibility"])

    def effective(self, reader: Reader, subject: str, change: Change | None = None) -> dict[str, Any]:
        """Return the effective configuration of a subject, with defaults and outer scopes merged in."""
        whole: dict[str, Any] = {"compatibility": self._level.value}
        for settings in reversed(self._layers(reader, subject, change)):
            whole |= _read(settings)
        return whole

    def own(self, reader: Reader, subject: str) -> dict[str, Any]:
        """Return the configuration of a subject itself.

        Raises:
            InvalidError: COMPATIBILITY_NOT_SET, there is none.
        """
        found = _read(self._reader.settings(reader, subject))
        if not found:
            raise _not_set(subject)
        return found

    def alias(self, reader: Reader, subject: str) -> str:
        """Return the subject of a name: another one if the name is an alias, else itself.

        Needed by every call, so the answer is cached: it may be a second old, and the time of the query, if another
        process has changed it.
        """
        return self._read_cached(reader).aliases.get(subject, subject)

    def normalizes(self, reader: Reader, subject: str) -> bool:
        """Return whether a subject normalizes schemas; the answer may be a second old, as that of `alias`."""
        normalize = self._read_cached(reader).normalize
        if not normalize:
            return False
        values = (normalize.get(name) for name in (subject, *scopes(subject)))
        return next((value for value in values if value is not None), False)

    def _read_cached(self, reader: Reader) -> _CachedSettings:
        """Return the cached settings of all; while one caller refreshes the cache, the others use the old values.

        The lock is not held during the query: this caller may wait for a connection, and callers with connections, in
        the middle of an act, would wait for the lock.
        """
        with self._lock:
            now, cached, changes = self._clock(), self._cached, self._changes
            if (
                cached is not None
                and cached.changes == changes
                and (self._refreshing or now - cached.at < _CACHE_SECONDS)
            ):
                return cached
            self._refreshing = True
        try:
            found = {name: _read(settings) for name, settings in self._reader.all_settings(reader).items()}
        finally:
            self._refreshing = False
        normalize = {name: one["normalize"] for name, one in found.items() if "normalize" in one}
        fresh = _CachedSettings(at=now, changes=changes, aliases=_aliases(found), normalize=normalize)
        with self._lock:
            if self._cached is None or self._cached.changes <= changes:
                self._cached = fresh
        return fresh

    def _changed(self) -> None:
        with self._lock:
            self._changes += 1

    def aliases(self, reader: Reader) -> dict[str, list[str]]:
        """Return the aliases of every subject that has some."""
        found: dict[str, list[str]] = {}
        configured = {name: _read(settings) for name, settings in self._reader.all_settings(reader).items()}
        for name, meant in sorted(_aliases(configured).items()):
            found.setdefault(meant, []).append(name)
        return found

    def configure(self, work: UnitOfWork, subject: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Change the keys given, remove those given as None, keep the others; return the new configuration.

        Raises:
            InvalidError: COMPATIBILITY_INVALID, for an unknown level; REQUEST_INVALID or RULES_INVALID, for a value
                of another form.
        """
        checked = _checked(changes)
        with self._writer.change(work, subject) as change:
            settings = change.settings()
            merged = {key: value for key, value in (_read(settings) | checked).items() if value is not None}
            change.configure(replace(settings, config=json.dumps(merged, ensure_ascii=False) if merged else None))
            self._changed()
            return merged

    def reset(self, work: UnitOfWork, subject: str) -> dict[str, Any]:
        """Remove the configuration; return what it was.

        Raises:
            InvalidError: COMPATIBILITY_NOT_SET, the subject has none.
        """
        with self._writer.change(work, subject) as change:
            settings = change.settings()
            before = _read(settings)
            if not before and subject != GLOBAL:
                raise _not_set(subject)
            change.configure(replace(settings, config=None))
            self._changed()
            return {"compatibility": self._level.value} | before

    def mode(
        self, reader: Reader, subject: str, *, default_to_global: bool = True, change: Change | None = None
    ) -> Mode:
        """Return the mode of a subject.

        Raises:
            InvalidError: MODE_NOT_SET, when the subject has none of its own and *default_to_global* is off.
        """
        layers = [settings.mode for settings in self._layers(reader, subject, change)]
        if layers[0] is None and subject != GLOBAL and not default_to_global:
            raise _mode_not_set(subject)
        if default_to_global and layers[-1] == Mode.READONLY_OVERRIDE:
            return Mode.READONLY_OVERRIDE
        return Mode(next((mode for mode in layers if mode), Mode.READWRITE))

    def set_mode(self, work: UnitOfWork, subject: str, mode: str, *, force: bool = False) -> Mode:
        """Set the mode of a subject, of a context, or of all.

        Args:
            work: the transaction.
            subject: whose; `GLOBAL` for all.
            mode: its name, in any case.
            force: IMPORT even where there are schemas.

        Raises:
            InvalidError: MODE_INVALID.
            RefusedError: SUBJECT_READ_ONLY, for IMPORT where there are schemas.
        """
        try:
            chosen = Mode(mode.upper())
        except ValueError as error:
            raise InvalidError(
                Reason.MODE_INVALID, f"got the mode {mode[:40]!r}; expected one of {', '.join(Mode)}"
            ) from error
        with self._writer.change(work, subject) as change:
            if chosen is Mode.IMPORT and not force and self._has_versions(work, subject, change):
                raise RefusedError(
                    Reason.SUBJECT_READ_ONLY,
                    "Cannot import since found existing subjects; delete them for good first, or set force=true",
                    details={"subject": subject},
                )
            change.configure(replace(change.settings(), mode=chosen.value))
        return chosen

    def reset_mode(self, work: UnitOfWork, subject: str, *, recursive: bool = False) -> Mode:
        """Remove the mode; return what it was.

        Args:
            work: the transaction.
            subject: whose; `GLOBAL` for all.
            recursive: also of every subject in the scope.

        Raises:
            InvalidError: MODE_NOT_SET, when none was set for the subject.
        """
        with self._writer.change(work, subject) as change:
            settings = change.settings()
            if settings.mode is None and subject != GLOBAL and not recursive:
                raise _mode_not_set(subject)
            change.configure(replace(settings, mode=None))
        if recursive:
            for name, inner in sorted(self._reader.all_settings(work).items()):
                if inner.mode is not None and subject in scopes(name):
                    with self._writer.change(work, name) as change:
                        change.configure(replace(change.settings(), mode=None))
        return Mode(settings.mode or Mode.READWRITE)

    def refuse_read_only(self, work: UnitOfWork, subject: str, change: Change) -> Mode:
        """Refuse a change that the mode forbids; return the mode.

        Raises:
            RefusedError: SUBJECT_READ_ONLY.
        """
        mode = self.mode(work, subject, change=change)
        if not mode.writable:
            raise RefusedError(
                Reason.SUBJECT_READ_ONLY,
                f"Subject {subject} is in read-only mode; set its mode to READWRITE first",
                details={"subject": subject},
            )
        return mode

    def forget(self, change: Change) -> None:
        """Remove a subject's settings when its last version is purged."""
        change.configure(Settings())
        self._changed()

    def forget_scope(self, work: UnitOfWork, scope: str) -> None:
        """Remove the settings of a context."""
        with self._writer.change(work, scope) as change:
            self.forget(change)

    def _layers(self, reader: Reader, subject: str, change: Change | None) -> list[Settings]:
        """Return a subject's settings and those of the scopes around it, nearest first."""
        outer = scopes(subject)
        if change is not None:
            found: Mapping[str, Settings] = change.scopes()
            mine = change.settings()
        else:
            found = self._reader.settings_of(reader, [subject, *outer])
            mine = found.get(subject, Settings())
        return [mine, *(found.get(name, Settings()) for name in outer)]

    def _has_versions(self, work: UnitOfWork, scope: str, change: Change) -> bool:
        """Return whether a scope contains versions."""
        if change.versions():
            return True
        return scope in _scopes_of(name for name, _ in self._reader.subjects(work))


def _aliases(configured: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    meant = {name: found.get("alias") for name, found in configured.items()}
    return {name: normal(other) for name, other in meant.items() if isinstance(other, str) and other}


def _scopes_of(names: Iterable[str]) -> set[str]:
    return {scope for name in names for scope in scopes(name)}


def _checked(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Check the values that the registry or its clients use.

    Raises:
        InvalidError: COMPATIBILITY_INVALID; REQUEST_INVALID or RULES_INVALID.
    """
    checked = dict(changes)
    level = changes.get("compatibility")
    if level is not None:
        if not isinstance(level, str):
            raise InvalidError(Reason.COMPATIBILITY_INVALID, "got a level that is no string")
        checked["compatibility"] = Compatibility.parse(level).value
    for name in _FLAGS:
        if not isinstance(changes.get(name), bool | None):
            raise _wrong(name, "true or false")
    for name in _TEXTS:
        value = changes.get(name)
        if not isinstance(value, str | None) or (value and (not value.isprintable() or len(value) > _MAX_TEXT)):
            raise _wrong(name, f"printable text of {_MAX_TEXT} characters at most")
        if value == "":
            checked[name] = None
    for name in _METADATA:
        checked_metadata(changes.get(name))
    for name in _RULES:
        checked_rules(changes.get(name))
    return checked


def _read(settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(settings.config) if settings.config else {}
    return found


def _wrong(name: str, expected: str) -> InvalidError:
    return InvalidError(Reason.REQUEST_INVALID, f'got "{name}" of another form; expected {expected}')


def _not_set(subject: str) -> InvalidError:
    return InvalidError(
        Reason.COMPATIBILITY_NOT_SET, f"nothing is configured for the subject {subject}", details={"subject": subject}
    )


def _mode_not_set(subject: str) -> InvalidError:
    return InvalidError(
        Reason.MODE_NOT_SET, f"the subject {subject} has no mode of its own", details={"subject": subject}
    )
