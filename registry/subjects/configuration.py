"""Configuration of a subject, a context or all subjects: compatibility levels, modes, aliases, contracts.

    the subject's own  >  its context's (`:.police:`)  >  the global one  >  the registry's default

The configuration object is Confluent's. The registry acts on each of its keys; a value on which it could not act is
refused, so that nothing is stored that only seems to hold. For the same reason nothing is set for a name under which no
schema can be registered, nor for an alias, whose subject's settings apply.

A scope that is read-only keeps its configuration too, as in Confluent's registry: its mode is changed first.
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
from registry.subjects.contexts import normalize_subject, scopes, split
from registry.subjects.data_contracts import refuse_sensitive_values, validate_metadata, validate_rules
from registry.subjects.model import GLOBAL, Settings
from registry.subjects.store import SubjectChange, SubjectReader, SubjectWriter
from registry.subjects.versions import check_scope_name
from schemas.errors import InvalidError, Reason, RefusedError

__all__ = ["Configuration", "Mode"]

_FLAGS = ("normalize", "validateFields", "validateNewSchemas", "validateRules")
_TEXTS = ("alias", "compatibilityGroup")
_METADATA = ("defaultMetadata", "overrideMetadata")
_RULES = ("defaultRuleSet", "overrideRuleSet")
_MAX_TEXT = 500
_CACHE_SECONDS = 1.0


class Mode(StrEnum):
    """Mode of a subject: which changes it accepts."""

    READWRITE = "READWRITE"
    READONLY = "READONLY"
    READONLY_OVERRIDE = "READONLY_OVERRIDE"  # for all subjects of the scope, whatever their own modes
    IMPORT = "IMPORT"  # schemas with their ids and versions of another registry, not compared with each other
    FORWARD = "FORWARD"  # another registry is the leader: nothing is written here

    @property
    def writable(self) -> bool:
        """Whether changes are accepted."""
        return self in (Mode.READWRITE, Mode.IMPORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class _CachedSettings:
    """Settings of all scopes that every call needs.

    Attributes:
        read_at: clock when the read began. changes: number of changes that this process had made by then.
    """

    read_at: float
    changes: int
    aliases: Mapping[str, str]
    normalize: Mapping[str, bool]


class Configuration:
    """Service that reads and changes settings, with a cache of aliases and `normalize`. Thread-safe.

    Args:
        reader, writer: of the store of subjects.
        level: compatibility level that applies if none is configured.
        clock: monotonic seconds.
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
        self._cache: _CachedSettings | None = None
        self._refreshing = False
        self._changes = 0  # made by this process; they invalidate the cache

    def level(self, reader: Reader, subject: str, change: SubjectChange | None = None) -> Compatibility:
        """Return the compatibility level that applies to a subject.

        Args:
            reader: to read with.
            subject: its name; `GLOBAL` for the global level.
            change: the subject's change, if the caller holds its lock.
        """
        return Compatibility(self.effective(reader, subject, change)["compatibility"])

    def effective(self, reader: Reader, subject: str, change: SubjectChange | None = None) -> dict[str, Any]:
        """Return the complete configuration of a subject, merged with those of outer scopes and the default."""
        merged: dict[str, Any] = {"compatibility": self._level.value}
        for settings in reversed(self._layers(reader, subject, change)):
            merged |= _config(settings)
        return merged

    def own_configuration(self, reader: Reader, subject: str) -> dict[str, Any]:
        """Return the configuration of a subject itself.

        Raises:
            InvalidError: COMPATIBILITY_NOT_SET, when it has none.
        """
        found = _config(self._reader.settings(reader, subject))
        if not found:
            raise _not_set(subject)
        return found

    def resolve_alias(self, reader: Reader, subject: str) -> str:
        """Return the subject of an alias; the name itself if it is no alias.

        Every call needs it, so it is cached: a change by another process is seen after a second, and the time that the
        database takes to answer.
        """
        return self._read_cached(reader).aliases.get(subject, subject)

    def normalizes(self, reader: Reader, subject: str) -> bool:
        """Return whether schemas of a subject are normalized; cached as `resolve_alias` is."""
        normalize = self._read_cached(reader).normalize
        if not normalize:
            return False
        layers = (normalize.get(name) for name in (subject, *scopes(subject)))
        return next((one for one in layers if one is not None), False)

    def _read_cached(self, reader: Reader) -> _CachedSettings:
        """Return the cached settings; while one thread refreshes the cache, the others use the old values.

        The lock is not held during the refresh: that thread may wait for a connection, and threads that hold
        connections, within their transactions, would wait for the lock: a deadlock.
        """
        with self._lock:
            now, cached, changes = self._clock(), self._cache, self._changes
            if (
                cached is not None
                and cached.changes == changes
                and (self._refreshing or now - cached.read_at < _CACHE_SECONDS)
            ):
                return cached
            self._refreshing = True
        try:
            found = {name: _config(settings) for name, settings in self._reader.configurations(reader).items()}
        finally:
            self._refreshing = False
        normalize = {name: one["normalize"] for name, one in found.items() if "normalize" in one}
        refreshed = _CachedSettings(read_at=now, changes=changes, aliases=_aliases(found), normalize=normalize)
        with self._lock:
            if self._cache is None or self._cache.changes <= changes:
                self._cache = refreshed
        return refreshed

    def _invalidate(self) -> None:
        with self._lock:
            self._changes += 1

    def aliases(self, reader: Reader) -> dict[str, list[str]]:
        """Return the aliases of every subject that has some."""
        found: dict[str, list[str]] = {}
        configured = {name: _config(settings) for name, settings in self._reader.all_settings(reader).items()}
        for alias, subject in sorted(_aliases(configured).items()):
            found.setdefault(subject, []).append(alias)
        return found

    def configure(self, work: UnitOfWork, subject: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Change the given keys, remove those given as None, keep the others; return the new configuration.

        Raises:
            InvalidError: SUBJECT_INVALID; COMPATIBILITY_INVALID, for an unknown level; REQUEST_INVALID or
                RULES_INVALID, for an invalid value, for one on which the registry could not act, and for another key of
                an alias than `alias`.
            RefusedError: SUBJECT_READ_ONLY.
        """
        check_scope_name(subject)
        validated = _validated(changes)
        with self._writer.change(work, subject, scopes=scopes(subject)) as change:
            self.require_writable(work, subject, change)
            settings = change.settings()
            merged = {key: value for key, value in (_config(settings) | validated).items() if value is not None}
            if merged.get("alias"):
                _check_alias(subject, merged["alias"], {key for key in validated if validated[key] is not None})
            change.configure(replace(settings, config=json.dumps(merged, ensure_ascii=False) if merged else None))
            self._invalidate()
            return merged

    def reset(self, work: UnitOfWork, subject: str) -> dict[str, Any]:
        """Remove the configuration; return the old one.

        Raises:
            InvalidError: COMPATIBILITY_NOT_SET, when the subject had none.
            RefusedError: SUBJECT_READ_ONLY.
        """
        with self._writer.change(work, subject, scopes=scopes(subject)) as change:
            self.require_writable(work, subject, change)
            settings = change.settings()
            before = _config(settings)
            if not before and subject != GLOBAL:
                raise _not_set(subject)
            change.configure(replace(settings, config=None))
            self._invalidate()
            return {"compatibility": self._level.value} | before

    def mode(
        self, reader: Reader, subject: str, *, default_to_global: bool = True, change: SubjectChange | None = None
    ) -> Mode:
        """Return the mode of a subject.

        Raises:
            InvalidError: MODE_NOT_SET, when the subject has none of its own and *default_to_global* is False.
        """
        layers = [settings.mode for settings in self._layers(reader, subject, change)]
        if layers[0] is None and subject != GLOBAL and not default_to_global:
            raise _mode_not_set(subject)
        if default_to_global and Mode.READONLY_OVERRIDE in layers[1:]:
            return Mode.READONLY_OVERRIDE
        return Mode(next((mode for mode in layers if mode), Mode.READWRITE))

    def set_mode(self, work: UnitOfWork, subject: str, mode: str, *, force: bool = False) -> Mode:
        """Set the mode of a subject, of a context, or of all subjects.

        Args:
            work: the transaction.
            subject: its name; `GLOBAL` for all.
            mode: its name, in upper or lower case.
            force: set IMPORT even if there are schemas.

        Raises:
            InvalidError: SUBJECT_INVALID; MODE_INVALID; REQUEST_INVALID, for an alias.
            RefusedError: SUBJECT_READ_ONLY, for IMPORT if there are schemas.
        """
        check_scope_name(subject)
        try:
            chosen = Mode(mode.upper())
        except ValueError as error:
            raise InvalidError(
                Reason.MODE_INVALID, f"got the mode {mode[:40]!r}; expected one of {', '.join(Mode)}"
            ) from error
        with self._writer.change(work, subject) as change:
            target = _config(change.settings()).get("alias")
            if target:
                raise _is_alias(subject, target, "mode")
            if chosen is Mode.IMPORT and not force and self._has_versions(work, subject, change):
                raise RefusedError(
                    Reason.SUBJECT_READ_ONLY,
                    "Cannot import since found existing subjects; delete them for good first, or set force=true",
                    details={"subject": subject},
                )
            change.configure(replace(change.settings(), mode=chosen.value))
        return chosen

    def reset_mode(self, work: UnitOfWork, subject: str, *, recursive: bool = False) -> Mode:
        """Remove the mode; return the old one.

        Args:
            work: the transaction.
            subject: its name; `GLOBAL` for all.
            recursive: of every subject within the scope as well.

        Raises:
            InvalidError: MODE_NOT_SET, when the subject had none.
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

    def require_writable(self, work: UnitOfWork, subject: str, change: SubjectChange) -> Mode:
        """Check that the mode permits changes; return the mode.

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

    def clear(self, change: SubjectChange) -> None:
        """Remove a subject's settings, after its last version was deleted."""
        change.configure(Settings())
        self._invalidate()

    def clear_scope(self, work: UnitOfWork, scope: str) -> None:
        """Remove the settings of a context."""
        with self._writer.change(work, scope) as change:
            self.clear(change)

    def _layers(self, reader: Reader, subject: str, change: SubjectChange | None) -> list[Settings]:
        """Return a subject's settings and those of the scopes around it, nearest first."""
        outer = scopes(subject)
        if change is not None:
            found: Mapping[str, Settings] = change.scope_settings()
            own = change.settings()
        else:
            found = self._reader.settings_of(reader, [subject, *outer])
            own = found.get(subject, Settings())
        return [own, *(found.get(name, Settings()) for name in outer)]

    def _has_versions(self, work: UnitOfWork, scope: str, change: SubjectChange) -> bool:
        """Return whether a scope has versions."""
        if change.versions():
            return True
        return scope in _scopes_of(name for name, _ in self._reader.subjects(work))


def _aliases(configured: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    targets = {name: found.get("alias") for name, found in configured.items()}
    return {name: normalize_subject(target) for name, target in targets.items() if isinstance(target, str) and target}


def _scopes_of(names: Iterable[str]) -> set[str]:
    return {scope for name in names for scope in scopes(name)}


def _check_alias(subject: str, target: str, changed: Iterable[str]) -> None:
    """Check that an alias is a subject's, and that nothing else is set for it."""
    if subject == GLOBAL or not split(subject).name:
        raise InvalidError(
            Reason.REQUEST_INVALID, f'got "alias" for {subject or "all"}; expected it for a subject, not for a scope'
        )
    others = sorted(set(changed) - {"alias"})
    if others:
        raise _is_alias(subject, target, others[0])


def _validated(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Validate the values that the registry acts on.

    Raises:
        InvalidError: COMPATIBILITY_INVALID; REQUEST_INVALID or RULES_INVALID.
    """
    _refuse_ineffective(changes)
    validated = dict(changes)
    level = changes.get("compatibility")
    if level is not None:
        if not isinstance(level, str):
            raise InvalidError(Reason.COMPATIBILITY_INVALID, "got a level that is no string")
        validated["compatibility"] = Compatibility.parse(level).value
    for name in _FLAGS:
        if not isinstance(changes.get(name), bool | None):
            raise _invalid(name, "true or false")
    for name in _TEXTS:
        value = changes.get(name)
        if not isinstance(value, str | None) or (value and (not value.isprintable() or len(value) > _MAX_TEXT)):
            raise _invalid(name, f"printable text of {_MAX_TEXT} characters at most")
        if value == "":
            validated[name] = None
    for name in _METADATA:
        refuse_sensitive_values(validate_metadata(changes.get(name), name))
    for name in _RULES:
        validate_rules(changes.get(name), name)
    return validated


def _refuse_ineffective(changes: Mapping[str, Any]) -> None:
    """Refuse values on which the registry could not act."""
    if changes.get("compatibilityPolicy") is not None:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            'got "compatibilityPolicy", which concerns JSON schemas; only Avro schemas are compared here, so leave it '
            "out",
        )
    if changes.get("validateRules") is False:
        raise InvalidError(
            Reason.REQUEST_INVALID, 'got "validateRules" of false; rules are always validated, so leave it out'
        )


def _config(settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(settings.config) if settings.config else {}
    return found


def _invalid(name: str, expected: str) -> InvalidError:
    return InvalidError(Reason.REQUEST_INVALID, f'got "{name}" of another form; expected {expected}')


def _is_alias(subject: str, target: str, what: str) -> InvalidError:
    return InvalidError(
        Reason.REQUEST_INVALID,
        f'got "{what}" for {subject}, an alias, whose own would never apply; set it for {target}',
        details={"subject": subject},
    )


def _not_set(subject: str) -> InvalidError:
    return InvalidError(
        Reason.COMPATIBILITY_NOT_SET, f"nothing is configured for the subject {subject}", details={"subject": subject}
    )


def _mode_not_set(subject: str) -> InvalidError:
    return InvalidError(
        Reason.MODE_NOT_SET, f"the subject {subject} has no mode of its own", details={"subject": subject}
    )
