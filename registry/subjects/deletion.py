"""Deletion of subjects and versions in two steps: softly, which hides them, then permanently.

A referenced version is not deleted: softly, while a live version refers to it; permanently, while any version does. Ids
keep their contents in any case.
"""

from collections.abc import Callable, Iterable

from registry.database.unit_of_work import Reader, UnitOfWork
from registry.subjects.configuration import Configuration
from registry.subjects.contexts import scopes
from registry.subjects.model import StoredVersion
from registry.subjects.store import SubjectChange, SubjectReader, SubjectWriter
from registry.subjects.versions import select_version, unknown_subject
from schemas.errors import ConflictError, Reason

__all__ = ["Deletion"]


class Deletion:
    """Service that deletes subjects and versions.

    Args:
        reader, writer: of the store of subjects.
        configuration: modes.
        governed: returns whether a subject must be classified; its versions are kept, for later ones are compared with
            them.
    """

    def __init__(
        self,
        reader: SubjectReader,
        writer: SubjectWriter,
        configuration: Configuration,
        *,
        governed: Callable[[Reader, str], bool],
    ) -> None:
        self._governed = governed
        self._reader = reader
        self._writer = writer
        self._configuration = configuration

    def delete(self, work: UnitOfWork, subject: str, *, permanent: bool = False) -> list[int]:
        """Delete every version of a subject: softly, or, once they are softly deleted, permanently.

        Returns:
            The numbers deleted.

        Raises:
            InvalidError: SUBJECT_UNKNOWN.
            ConflictError: SUBJECT_DELETED, when it is softly deleted already; SUBJECT_NOT_DELETED, when a permanent
                deletion comes first; SCHEMA_REFERENCED.
            RefusedError: SUBJECT_READ_ONLY.
        """
        with self._writer.change(work, subject, scopes=scopes(subject)) as change:
            self._configuration.require_writable(work, subject, change)
            versions = change.versions()
            if not versions:
                raise unknown_subject(subject)
            live = [version.number for version in versions if not version.deleted]
            if permanent and live:
                raise ConflictError(
                    Reason.SUBJECT_NOT_DELETED,
                    f"the subject {subject} is to be deleted softly first",
                    details={"subject": subject},
                )
            if not permanent and not live:
                raise ConflictError(
                    Reason.SUBJECT_DELETED, f"the subject {subject} is deleted already", details={"subject": subject}
                )
            numbers = live or [version.number for version in versions]
            if any(item.subject != subject for item in self._reader.referrers(work, subject)):
                for number in numbers:
                    others = [item for item in self._reader.referrers(work, subject, number) if item.subject != subject]
                    _check_unreferenced(subject, number, others, permanent=permanent)
            self._remove(work, subject, change, numbers, permanent=permanent, last=True)
            return numbers

    def delete_version(self, work: UnitOfWork, subject: str, number: int | None, *, permanent: bool = False) -> int:
        """Delete one version: softly, or, once it is softly deleted, permanently; return its number.

        Raises:
            InvalidError: SUBJECT_UNKNOWN or VERSION_UNKNOWN.
            ConflictError: VERSION_DELETED, when it is softly deleted already; VERSION_NOT_DELETED, when a permanent
                deletion comes first; SCHEMA_REFERENCED.
            RefusedError: SUBJECT_READ_ONLY.
        """
        with self._writer.change(work, subject, scopes=scopes(subject)) as change:
            self._configuration.require_writable(work, subject, change)
            versions = change.versions()
            if not versions:
                raise unknown_subject(subject)
            candidates = [version for version in versions if not version.deleted] if number is None else versions
            version = select_version(candidates, number)
            details = {"subject": subject, "version": str(version.number)}
            if permanent and not version.deleted:
                raise ConflictError(
                    Reason.VERSION_NOT_DELETED, "the version is to be deleted softly first", details=details
                )
            if version.deleted and not permanent:
                raise ConflictError(Reason.VERSION_DELETED, "the version is deleted already", details=details)
            referrers = self._reader.referrers(work, subject, version.number)
            _check_unreferenced(subject, version.number, referrers, permanent=permanent)
            self._remove(work, subject, change, [version.number], permanent=permanent, last=len(versions) == 1)
            return version.number

    def _remove(
        self, work: UnitOfWork, subject: str, change: SubjectChange, numbers: list[int], *, permanent: bool, last: bool
    ) -> None:
        if not permanent:
            change.mark_deleted(numbers)
            return
        if self._governed(work, subject):
            raise ConflictError(
                Reason.SCHEMA_REFERENCED,
                f"the catalogue holds {subject}: its versions are kept, since lowering a classification is told "
                "by them. Softly deleted they are out of the way",
                details={"subject": subject},
            )
        change.purge(numbers)
        if last:
            self._configuration.clear(change)


def _check_unreferenced(subject: str, number: int, referrers: Iterable[StoredVersion], *, permanent: bool) -> None:
    for item in referrers:
        if permanent or not item.deleted:
            raise ConflictError(
                Reason.SCHEMA_REFERENCED,
                f"One or more references exist to the schema {{magic=1,keytype=SCHEMA,subject={subject},"
                f"version={number}}}. The first is version {item.number} of {item.subject}; delete it before.",
                details={"subject": subject, "version": str(number)},
            )
