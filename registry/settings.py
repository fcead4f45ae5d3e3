"""What is configured, for one subject or for all: compatibility levels and modes.

A subject's own setting wins over the global one, and that over the registry's default. The configuration object
is Confluent's, kept whole: what this registry does not act on (aliases, overrides, rules) is stored and given
back as it came.
"""

import json
from dataclasses import replace
from enum import StrEnum
from typing import Any

from registry.compatibility import Compatibility
from registry.store import GLOBAL, Change, Settings, SubjectStore
from schemas.errors import InvalidError, Reason, RefusedError

__all__ = ["Configuration", "Mode"]


class Mode(StrEnum):
    """Whether a subject takes new versions."""

    READWRITE = "READWRITE"
    READONLY = "READONLY"


class Configuration:
    """Reads and changes settings.

    Args:
        store: where they are kept.
        level: the level that holds where none is configured.
    """

    def __init__(self, store: SubjectStore, *, level: Compatibility = Compatibility.BACKWARD) -> None:
        self._store = store
        self._level = level

    def level(self, subject: str, own: Settings | None = None) -> Compatibility:
        """Give the level that holds for a subject.

        Args:
            subject: its name; `GLOBAL` for the level that holds everywhere.
            own: the subject's settings, if the caller has read them under its lock.
        """
        return Compatibility(self.effective(subject, own)["compatibility"])

    def effective(self, subject: str, own: Settings | None = None) -> dict[str, Any]:
        """Give the whole configuration that holds for a subject, defaults and global settings merged in."""
        mine = self._store.settings(subject) if own is None else own
        everywhere = mine if subject == GLOBAL else self._store.settings(GLOBAL)
        return {"compatibility": self._level.value} | _read(everywhere) | _read(mine)

    def own(self, subject: str) -> dict[str, Any]:
        """Give what is configured for a subject itself.

        Raises:
            InvalidError: COMPATIBILITY_NOT_SET, when nothing is.
        """
        found = _read(self._store.settings(subject))
        if not found:
            raise _not_set(subject)
        return found

    def configure(self, subject: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Change the keys that are given, keep the others; give what is configured now.

        Raises:
            InvalidError: COMPATIBILITY_INVALID, for an unknown level.
        """
        if changes.get("compatibility") is not None:
            level = changes["compatibility"]
            changes = changes | {"compatibility": Compatibility.parse(str(level)).value}
        with self._store.change(subject) as change:
            settings = change.settings()
            merged = _read(settings) | {key: value for key, value in changes.items() if value is not None}
            change.configure(replace(settings, config=json.dumps(merged, ensure_ascii=False) if merged else None))
            return merged

    def reset(self, subject: str) -> dict[str, Any]:
        """Drop what is configured; give what it was.

        Raises:
            InvalidError: COMPATIBILITY_NOT_SET, when nothing was configured for the subject.
        """
        with self._store.change(subject) as change:
            settings = change.settings()
            before = _read(settings)
            if not before and subject != GLOBAL:
                raise _not_set(subject)
            change.configure(replace(settings, config=None))
            return {"compatibility": self._level.value} | before

    def mode(self, subject: str, *, default_to_global: bool = True) -> Mode:
        """Give the mode of a subject.

        Raises:
            InvalidError: MODE_NOT_SET, when the subject has none of its own and *default_to_global* is off.
        """
        mine = self._store.settings(subject).mode
        if mine is None and subject != GLOBAL:
            if not default_to_global:
                raise _mode_not_set(subject)
            mine = self._store.settings(GLOBAL).mode
        return Mode(mine or Mode.READWRITE)

    def set_mode(self, subject: str, mode: str) -> Mode:
        """Set the mode of a subject, or of all.

        Raises:
            InvalidError: MODE_INVALID.
        """
        try:
            chosen = Mode(mode.upper())
        except ValueError as error:
            raise InvalidError(
                Reason.MODE_INVALID, f"got the mode {mode[:40]!r}; expected one of {', '.join(Mode)}"
            ) from error
        with self._store.change(subject) as change:
            change.configure(replace(change.settings(), mode=chosen.value))
        return chosen

    def reset_mode(self, subject: str) -> Mode:
        """Drop the mode that is set; give what it was.

        Raises:
            InvalidError: MODE_NOT_SET, when none was set for the subject.
        """
        with self._store.change(subject) as change:
            settings = change.settings()
            if settings.mode is None and subject != GLOBAL:
                raise _mode_not_set(subject)
            change.configure(replace(settings, mode=None))
            return Mode(settings.mode or Mode.READWRITE)

    def refuse_read_only(self, subject: str, own: Settings) -> None:
        """Refuse a change where the mode forbids it.

        Raises:
            RefusedError: SUBJECT_READ_ONLY.
        """
        mode = own.mode or self._store.settings(GLOBAL).mode or Mode.READWRITE
        if mode != Mode.READWRITE:
            raise RefusedError(
                Reason.SUBJECT_READ_ONLY,
                f"Subject {subject} is in read-only mode; set its mode to READWRITE first",
                details={"subject": subject},
            )

    def forget(self, change: Change) -> None:
        """Drop a subject's settings when its last version is gone."""
        change.configure(Settings())


def _read(settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(settings.config) if settings.config else {}
    return found


def _not_set(subject: str) -> InvalidError:
    return InvalidError(
        Reason.COMPATIBILITY_NOT_SET, f"nothing is configured for the subject {subject}", details={"subject": subject}
    )


def _mode_not_set(subject: str) -> InvalidError:
    return InvalidError(
        Reason.MODE_NOT_SET, f"the subject {subject} has no mode of its own", details={"subject": subject}
    )
