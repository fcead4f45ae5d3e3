"""Drop folder as a source: each file that is ready, and was not published before, is a portion.

A file is identified by its SHA-256, not by its name or its time: copies over SMB keep their times, and people save
again without changing anything. The same content again is skipped; the same name with other content is a new version.

    ready_when   a marker file (`X.csv.ok` or `X.ok`), or: neither content nor inode changed for so many seconds. The
                 change time is read beside the modification time, since no copying tool can set it back
    oldest first by modification time, then name
    quarantine   a file in no known encoding, with a line that is too long, or without a usable header: recorded with
                 line and offset, said once, and moved to a folder of its own if configured; a file of other content
                 takes its place
    links        a symbolic link is set aside, never followed: who may write into the folder is not who may read this
                 machine's files
    kept files   an old version that reappears (restored, touched) does not overwrite a later one: known content is
                 published again only if it is newer than what was published last

The folder is scanned, not watched: inotify does not work on network shares.
"""

import fnmatch
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from typing_extensions import override

from connectors.port import Portion, Reject, RejectCode, Replaces, RowChunk, SnapshotSource
from connectors.sources.csv_file import CsvPortion
from connectors.sources.encoding import MAX_LINE, detect_encoding
from connectors.sources.file_portion import (
    DAMAGED,
    FileForm,
    FileFormat,
    FilePortion,
    FileSignature,
    file_form,
)
from connectors.sources.json_lines_file import JsonLinesPortion
from connectors.sources.workbook_file import WorkbookPortion
from schemas.errors import InvalidError, PoolError, Reason, UnavailableError

__all__ = ["AfterSuccess", "DropFolder", "FileHistory", "FileRecord", "FolderFile", "ReadyWhen"]

_DAY = 86_400.0  # seconds
_FORMS: Mapping[FileForm, type[FilePortion]] = {
    FileForm.CSV: CsvPortion,
    FileForm.TSV: CsvPortion,
    FileForm.JSON_LINES: JsonLinesPortion,
    FileForm.WORKBOOK: WorkbookPortion,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyWhen:
    """When a file is complete: a marker file exists beside it, or it has not changed for so many seconds."""

    marker: str = ""
    unchanged: float = 30.0

    def is_ready(self, path: Path, signature: FileSignature, now: datetime) -> bool:
        """Return whether the file can be read."""
        if self.marker:
            return any(each.exists() for each in self.markers(path))
        today = now.timestamp()
        # A time of tomorrow or later was set, not measured, and the file would never be ready.
        changed_at = max(
            each / 1e9 for each in (signature.mtime_ns, signature.ctime_ns, 0) if each / 1e9 < today + _DAY
        )
        return today - changed_at >= self.unchanged

    def markers(self, path: Path) -> tuple[Path, ...]:
        """Return the permitted names of the marker file."""
        return (path.with_name(path.name + self.marker), path.with_suffix(self.marker)) if self.marker else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AfterSuccess:
    """Disposal of a file that was published or quarantined: it is kept, moved, or deleted."""

    move_to: Path | None = None
    delete: bool = False

    def dispose(self, path: Path, markers: Sequence[Path], sha256: bytes) -> None:
        """Move or delete the file and its markers. Idempotent.

        Raises:
            UnavailableError: SOURCE_UNAVAILABLE, when the file cannot be moved or deleted.
        """
        if self.move_to is None and not self.delete:
            return
        try:
            if self.delete:
                path.unlink(missing_ok=True)
            elif self.move_to is not None and (path.is_symlink() or path.exists()):
                self.move_to.mkdir(parents=True, exist_ok=True)
                target = self.move_to / path.name
                if target.exists():
                    target = target.with_name(f"{path.stem}.{sha256.hex()[:8]}{path.suffix}")
                path.rename(target)
            for marker in markers:
                marker.unlink(missing_ok=True)
        except OSError as error:
            raise UnavailableError(
                Reason.SOURCE_UNAVAILABLE,
                f"{path.name} is dealt with but cannot be moved away ({error.strerror}); is the folder writable?",
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One content of a file that the connector has published or quarantined."""

    name: str
    sha256: bytes
    signature: FileSignature
    done: bool  # False: it was quarantined


class FileHistory(Protocol):
    """History of the files of one publication, as the ledger stores it; `fingerprint` is of contract and mapping."""

    def find_by_signature(self, name: str, signature: FileSignature, fingerprint: bytes) -> FileRecord | None:
        """Return the content that had this name and this signature."""
        ...

    def find_by_digest(self, sha256: bytes, fingerprint: bytes) -> FileRecord | None:
        """Return the content with this digest."""
        ...

    def latest(self, name: str | None) -> FileRecord | None:
        """Return what was published last, of this name or of any."""
        ...

    def record(self, file_record: FileRecord, fingerprint: bytes) -> None:
        """Store it; it is the latest now if it is done."""
        ...

    def record_alias(self, file_record: FileRecord, fingerprint: bytes) -> None:
        """Store another name or signature of a content; the latest stays the same."""
        ...


class DropFolder(SnapshotSource):
    """A drop folder of files, of any form of `connectors.sources.file_portion`."""

    def __init__(
        self,
        path: Path,
        patterns: Sequence[str],
        *,
        file_format: FileFormat,
        replaces: Replaces,
        ready_when: ReadyWhen,
        after_success: AfterSuccess,
        history: FileHistory,
        quarantine: Callable[[str, Reject], None],
        clock: Callable[[], datetime],
        after_reject: AfterSuccess = AfterSuccess(),
    ) -> None:
        self.path = path
        self._patterns = tuple(patterns)
        self._file_format = file_format
        self._replaces = replaces
        self._ready_when = ready_when
        self._after_success = after_success
        self._after_reject = after_reject
        self._history = history
        self._quarantine = quarantine
        self._clock = clock

    def files(self) -> list[Path]:
        """Return the files that match, oldest first, ready or not.

        Raises:
            UnavailableError: SOURCE_UNAVAILABLE, when the folder cannot be listed.
        """
        try:
            found = [
                (entry.lstat().st_mtime_ns, entry.name, entry)
                for entry in self.path.iterdir()
                if not entry.name.startswith(".")
                and any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in self._patterns)
                and (entry.is_symlink() or entry.is_file())
            ]
        except OSError as error:
            raise UnavailableError(
                Reason.SOURCE_UNAVAILABLE,
                f"the folder {self.path} cannot be listed ({error.strerror}); is the share mounted?",
            ) from error
        return [entry for _, _, entry in sorted(found)]

    @override
    def portions(self, fingerprint: bytes) -> Iterator[Portion]:
        for path in self.files():
            portion = self._portion_to_publish(path, fingerprint)
            if portion is not None:
                yield portion

    def open(self, path: Path) -> Portion:
        """Return one file as a portion, without regard to its history: for a preview.

        Raises:
            InvalidError: FILE_REJECTED.
            UnavailableError: SOURCE_UNAVAILABLE.
        """
        return self._portion(path, b"")

    @override
    def close(self) -> None:
        """Do nothing: no file stays open between two passes."""

    def _portion_to_publish(self, path: Path, fingerprint: bytes) -> "FolderFile | None":
        try:
            signature = FileSignature.of(path)
        except FileNotFoundError:
            return None  # removed since the folder was listed
        known = self._history.find_by_signature(path.name, signature, fingerprint)
        if known is not None:
            self._dispose(path, known)
            return None
        if not self._ready_when.is_ready(path, signature, self._clock()):
            return None
        try:
            portion = self._portion(path, fingerprint)
        except InvalidError as error:
            self._quarantine_file(path, signature, error, fingerprint)
            return None
        known = self._history.find_by_digest(portion.sha256, fingerprint)
        if known is None or self._must_apply_again(portion, known):
            return portion
        self._history.record_alias(
            FileRecord(name=path.name, sha256=known.sha256, signature=signature, done=known.done), fingerprint
        )
        self._dispose(path, known)
        return None

    def _must_apply_again(self, portion: "FolderFile", known: FileRecord) -> bool:
        """Return whether a content that was published is to be published again: it is newer than the last one."""
        if not known.done or self._replaces is Replaces.NOTHING:
            return False
        latest = self._history.latest(portion.name if self._replaces is Replaces.SAME_NAME else None)
        return (
            latest is not None
            and latest.sha256 != portion.sha256
            and latest.signature.mtime_ns < portion.signature.mtime_ns
        )

    def _portion(self, path: Path, fingerprint: bytes) -> "FolderFile":
        if path.is_symlink():
            raise InvalidError(
                Reason.FILE_REJECTED,
                "a symbolic link, which is not followed: it could name any file that this user may read. Put the file "
                "itself into the folder",
                details={"code": RejectCode.ROW_SHAPE.value, "sha256": hashlib.sha256(bytes(path)).hexdigest()},
            )
        try:
            signature = FileSignature.of(path)
            form = file_form(path, self._file_format)
            sha256, encoding = (_digest(path), "") if form is FileForm.WORKBOOK else self._decoded(path)
        except OSError as error:
            raise UnavailableError(
                Reason.SOURCE_UNAVAILABLE, f"{path.name} cannot be read ({error.strerror}); may this user read it?"
            ) from error
        try:
            content = _FORMS[form](
                path,
                identity=sha256[:16],
                encoding=encoding,
                file_format=self._file_format,
                replaces=self._replaces,
                signature=signature,
            )
        except PoolError as error:
            error.details["sha256"] = sha256.hex()
            raise
        return FolderFile(content, sha256, self, fingerprint)

    def _decoded(self, path: Path) -> tuple[bytes, str]:
        """Return a text file's digest and its encoding."""
        try:
            decoded = detect_encoding(path, self._file_format.encoding)
        except InvalidError as error:  # too large unpacked
            error.details["sha256"] = _digest(path).hex()
            raise
        except DAMAGED as error:
            raise InvalidError(
                Reason.FILE_REJECTED,
                "the compressed file is damaged or was cut; copy it again",
                details={"code": RejectCode.ENCODING.value, "sha256": _digest(path).hex()},
            ) from error
        if decoded.failure is not None:
            failure = decoded.failure
            cause = failure.cause or (
                f"not text in {' or '.join(failure.tried)}; save the file again, as UTF-8 or GB18030"
            )
            raise InvalidError(
                Reason.FILE_REJECTED,
                f"byte {failure.offset}, on line {failure.line}: {cause}",
                details={
                    "code": RejectCode.ENCODING.value,
                    "line": str(failure.line),
                    "offset": str(failure.offset),
                    "sha256": decoded.sha256.hex(),
                },
            )
        if decoded.long_line:
            raise InvalidError(
                Reason.FILE_REJECTED,
                f"line {decoded.long_line} has more than {MAX_LINE:,} characters; expected a record on each line. "
                "Export the file again, with line ends",
                details={
                    "code": RejectCode.TOO_LARGE.value,
                    "line": str(decoded.long_line),
                    "sha256": decoded.sha256.hex(),
                },
            )
        return decoded.sha256, decoded.encoding

    def _quarantine_file(self, path: Path, signature: FileSignature, error: InvalidError, fingerprint: bytes) -> None:
        file_record = FileRecord(
            name=path.name, sha256=bytes.fromhex(error.details["sha256"]), signature=signature, done=False
        )
        reject = Reject(
            line=int(error.details.get("line", self._file_format.header_row)),
            code=RejectCode(error.details["code"]),
            field="",
            message=error.message,
            original=b"",
        )
        self._quarantine(path.name, reject)
        self._history.record(file_record, fingerprint)
        self._dispose(path, file_record)

    def _dispose(self, path: Path, known: FileRecord) -> None:
        disposal = self._after_success if known.done else self._after_reject
        disposal.dispose(path, self._ready_when.markers(path), known.sha256)

    def record_published(self, portion: "FolderFile", fingerprint: bytes) -> None:
        """Record a published file, and move or delete it if configured."""
        file_record = FileRecord(name=portion.name, sha256=portion.sha256, signature=portion.signature, done=True)
        self._history.record(file_record, fingerprint)
        self._dispose(portion.path, file_record)


class FolderFile(Portion):
    """A file of a drop folder."""

    stable = True

    def __init__(self, content: FilePortion, sha256: bytes, folder: DropFolder, fingerprint: bytes) -> None:
        self.content = content
        self.sha256 = sha256
        self._folder = folder
        self._fingerprint = fingerprint

    @property
    def path(self) -> Path:
        """Return the file's path."""
        return self.content.path

    @property
    def signature(self) -> FileSignature:
        """Return the file's signature when it was first read."""
        return self.content.signature

    @property
    def encoding(self) -> str:
        """Return the encoding of its text; empty for a workbook."""
        return self.content.encoding

    @property
    @override
    def name(self) -> str:
        return self.content.name

    @property
    @override
    def identity(self) -> bytes:
        return self.content.identity

    @property
    @override
    def replaces(self) -> Replaces:
        return self.content.replaces

    @property
    @override
    def columns(self) -> Sequence[str]:
        return self.content.columns

    @override
    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[RowChunk]:
        return self.content.chunks(columns)

    @override
    def confirm(self) -> None:
        self._folder.record_published(self, self._fingerprint)


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
