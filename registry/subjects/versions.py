"""Version of a subject with its content, and the rules of subject names."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from registry.subjects.contexts import DEFAULT, GLOBAL_CONTEXT, MAX_SUBJECT, split
from registry.subjects.fingerprint import guid
from registry.subjects.model import GLOBAL, Content, StoredVersion
from schemas.errors import InvalidError, Reason

__all__ = [
    "RegisteredVersion",
    "check_scope_name",
    "check_subject_name",
    "grant_of_view",
    "is_view",
    "select_version",
    "unknown_subject",
    "view_subject",
    "with_text",
]

_VIEW = re.compile(r"view\..+\.v[1-9][0-9]*")
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredVersion:
    """A version of a subject and its content.

    Attributes:
        subject, number: the version. schema_id: its id. key: its content's.
        content: with the version's own text.
        deleted: softly.
    """

    subject: str
    number: int
    schema_id: int
    key: bytes
    content: Content
    deleted: bool

    @classmethod
    def of(cls, version: StoredVersion, content: Content) -> Self:
        """Return a version with its content."""
        return cls(
            subject=version.subject,
            number=version.number,
            schema_id=version.schema_id,
            key=version.key,
            content=content,
            deleted=version.deleted,
        )

    @property
    def guid(self) -> str:
        """The content's key as a UUID."""
        return guid(self.key)


def view_subject(grant: str, version: int) -> str:
    """Return the subject under which a grant version's output schema is registered."""
    return f"view.{grant}.v{version}"


def is_view(subject: str) -> bool:
    """Return whether a subject is a view's."""
    return subject.startswith("view.") and _VIEW.fullmatch(subject) is not None


def grant_of_view(subject: str) -> str:
    """Return the id of the grant whose view a subject is, as `is_view` says."""
    return subject.removeprefix("view.").rpartition(".v")[0]


def with_text(content: Content, text: str) -> Content:
    """Return an id's content with the text of one version."""
    return content if content.text == text else replace(content, text=text)


def select_version(versions: Sequence[StoredVersion], number: int | None) -> StoredVersion:
    """Return the version with this number, None = the last.

    Raises:
        InvalidError: VERSION_UNKNOWN.
    """
    for version in reversed(versions):
        if number is None or version.number == number:
            return version
    shown = "latest" if number is None else str(number)
    raise InvalidError(Reason.VERSION_UNKNOWN, f"the subject has no version {shown}", details={"version": shown})


def unknown_subject(subject: str) -> InvalidError:
    """Return the error for a subject without versions."""
    return InvalidError(
        Reason.SUBJECT_UNKNOWN, f"no schema is registered under {subject}", details={"subject": subject}
    )


def check_subject_name(subject: str) -> None:
    """Check that a subject name can be registered.

    Raises:
        InvalidError: SUBJECT_INVALID.
    """
    context, name = split(subject)
    if not name.strip() or len(subject) > MAX_SUBJECT or _UNUSABLE.search(subject):
        raise InvalidError(
            Reason.SUBJECT_INVALID,
            f"got a subject that is empty, longer than {MAX_SUBJECT} characters or holds control characters",
            details={"subject": json.dumps(subject[:80])},
        )
    reserved = context == GLOBAL_CONTEXT or name.startswith("view.") or name in ("__GLOBAL", "__EMPTY")
    if reserved or (context == DEFAULT and name.startswith(":")):
        raise InvalidError(
            Reason.SUBJECT_INVALID,
            f"got the subject {subject[:80]}; names that begin with 'view.' are kept for what grants deliver, a colon "
            f"begins a context's name, as in :.context:subject, and {GLOBAL_CONTEXT} holds no subject",
            details={"subject": subject[:80]},
        )


def check_scope_name(scope: str) -> None:
    """Check that settings of a scope can have an effect: of all, of a context, or of a subject that can be registered.

    Raises:
        InvalidError: SUBJECT_INVALID.
    """
    context, name = split(scope)
    if scope != GLOBAL and (name or context == DEFAULT):
        check_subject_name(scope)
