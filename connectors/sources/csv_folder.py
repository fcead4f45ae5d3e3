"""A drop folder as a source: each file that is ready, and was not published before, is a portion.

A file is known by its SHA-256, not by its name or its time: copies over SMB keep their times, and people save again
without changing anything. The same content again is skipped; the same name with other content is a new version.

    ready_when   a marker file (`X.csv.ok` or `X.ok`), or: neither content nor inode changed for so many seconds. The
                 change time is looked at beside the modification time, since no copying tool can set it back
    oldest first by modification time, then name
    set aside    a file in no known encoding, or without a usable header: remembered with line and offset, named in
                 `status`, and left where it is until its content changes
    kept files   an old version that reappears (restored, touched) does not overwrite a later one: known content is
                 read again only if it is newer than what was applied last

The folder is scanned, not watched: inotify does not work on network shares.
"""

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from connectors.port import Reject, RejectCode, Replaces
from connectors.sources.csv_file import CsvFormat, CsvPortion, Signature
from connectors.sources.encoding import examine
from schemas.errors import InvalidError, PoolError, Reason, UnavailableError

__all__ = ["AfterSuccess", "Applied", "FileMemory", "Folder", "ReadyWhen"]

_DAY = 86_400.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyWhen:
    """When a file is whole: a marker stands beside it, or it has been left alone for so many seconds."""

    marker: str = ""
    unchanged: float = 30.0

    def holds(self, path: Path, signature: Signature, now: datetime) -> bool:
        """Return whether the file can be read."""
        if self.marker:
            return any(each.exists() for each in self.markers(path))
        today = now.timestamp()
        # A time of tomorrow or later was set, not measured, and would never pass.
        touched = max(each / 1e9 for each in (signature.mtime_ns, signature.ctime_ns, 0) if each / 1e9 < today + _DAY)
        return today - touched >= self.unchanged

    def markers(self, path: Path) -> tuple[Path, ...]:
        """Return the names under which a marker may stand."""
        return (path.with_name(path.name + self.marker), path.with_suffix(self.marker)) if self.marker else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AfterSuccess:
    """What becomes of a published file: it is kept, moved, or deleted."""

    move_to: Path | None = None
    delete: bool = False

    def apply(self, path: Path, markers: Sequence[Path], sha256: bytes) -> None:
        """Do it. Done again after a crash, it finds nothing and does nothing.

        Raises:
            UnavailableError: SOURCE_UNAVAILABLE, when the file cannot be moved or deleted.
        """
        if self.move_to is None and not self.delete:
            return
        try:
            if self.delete:
                path.unlink(missing_ok=True)
            elif self.move_to is not None and path.exists():
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
                f"{path.name} is published but cannot be moved away ({error.strerror}); is the folder writable?",
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """One content that the connector remembers."""

    name: str
    sha256: bytes
    signature: Signature
    done: bool  # False: it was set aside


class FileMemory(Protocol):
    """What the ledger remembers of files, for one publication; `fingerprint` is of contract and mapping."""

    def seen(self, name: str, signature: Signature, fingerprint: bytes) -> Applied | None:
        """Return the content that stood under this name with this signature."""
        ...

    def find(self, sha256: bytes, fingerprint: bytes) -> Applied | None:
        """Return the content with this digest."""
        ...

    def newest(self, name: str | None) -> Applied | None:
        """Return what was applied last, of this name or of any."""
        ...

    def remember(self, applied: Applied, fingerprint: bytes) -> None:
        """Keep it; it is the newest now if it is done."""
        ...

    def touch(self, applied: Applied, fingerprint: bytes) -> None:
        """Keep another name or signature of a content; the newest stays what it is."""
        ...


class Folder:
    """A drop folder; see the module."""

    def __init__(
        self,
        path: Path,
        patterns: Sequence[str],
        *,
        form: CsvFormat,
        replaces: Replaces,
        ready_when: ReadyWhen,
        after_success: AfterSuccess,
        memory: FileMemory,
        set_aside: Callable[[str, Reject], None],
        clock: Callable[[], datetime],
    ) -> None:
        self.path = path
        self._patterns = tuple(patterns)
        self._form = form
        self._replaces = replaces
        self._ready_when = ready_when
        self._after_success = after_success
        self._memory = memory
        self._set_aside = set_aside
        self._clock = clock

    def files(self) -> list[Path]:
        """Return the files that match, oldest first, ready or not.

        Raises:
            UnavailableError: SOURCE_UNAVAILABLE, when the folder cannot be listed.
        """
        try:
            found = [
                (entry.stat().st_mtime_ns, entry.name, entry)
                for entry in self.path.iterdir()
                if not entry.name.startswith(".")
                and any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in self._patterns)
                and entry.is_file()
            ]
        except OSError as error:
            raise UnavailableError(
                Reason.SOURCE_UNAVAILABLE,
                f"the folder {self.path} cannot be listed ({error.strerror}); is the share mounted?",
            ) from error
        return [entry for _, _, entry in sorted(found)]

    def read(self, fingerprint: bytes) -> Iterator[CsvPortion]:
        """Return the files that are to be published; see `connectors.port.Source`."""
        for path in self.files():
            portion = self._look(path, fingerprint)
            if portion is not None:
                yield portion

    def open(self, path: Path) -> CsvPortion:
        """Return one file as a portion, whatever is remembered of it: for a preview.

        Raises:
            InvalidError: FILE_REJECTED.
            UnavailableError: SOURCE_UNAVAILABLE.
        """
        return self._portion(path, b"")

    def close(self) -> None:
        """Nothing is held open between two readings."""

    def _look(self, path: Path, fingerprint: bytes) -> CsvPortion | None:
        try:
            signature = Signature.of(path)
        except FileNotFoundError:
            return None  # taken away since the folder was listed
        known = self._memory.seen(path.name, signature, fingerprint)
        if known is not None:
            self._settle(path, known)
            return None
        if not self._ready_when.holds(path, signature, self._clock()):
            return None
        try:
            portion = self._portion(path, fingerprint)
        except InvalidError as error:
            self._reject(path, signature, error, fingerprint)
            return None
        known = self._memory.find(portion.sha256, fingerprint)
        if known is None or self._returns(portion, known):
            return portion
        self._memory.touch(
            Applied(name=path.name, sha256=known.sha256, signature=signature, done=known.done), fingerprint
        )
        self._settle(path, known)
        return None

    def _returns(self, portion: "FolderFile", known: Applied) -> bool:
        """Return whether a content that was applied once is to be applied again: it is newer than the last one."""
        if not known.done or self._replaces is Replaces.NOTHING:
            return False
        newest = self._memory.newest(portion.name if self._replaces is Replaces.SAME_NAME else None)
        return (
            newest is not None
            and newest.sha256 != portion.sha256
            and newest.signature.mtime_ns < portion.signature.mtime_ns
        )

    def _portion(self, path: Path, fingerprint: bytes) -> "FolderFile":
        try:
            signature = Signature.of(path)
            decoded = examine(path, self._form.encoding)
        except OSError as error:
            raise UnavailableError(
                Reason.SOURCE_UNAVAILABLE, f"{path.name} cannot be read ({error.strerror}); may this user read it?"
            ) from error
        if decoded.misfit is not None:
            misfit = decoded.misfit
            raise InvalidError(
                Reason.FILE_REJECTED,
                f"byte {misfit.offset}, on line {misfit.line}, is not text in {' or '.join(misfit.tried)}; save the "
                "file again, as UTF-8 or GB18030",
                details={
                    "code": RejectCode.ENCODING.value,
                    "line": str(misfit.line),
                    "offset": str(misfit.offset),
                    "sha256": decoded.sha256.hex(),
                },
            )
        try:
            return FolderFile(path, decoded.sha256, decoded.encoding, signature, self, fingerprint)
        except PoolError as error:
            error.details["sha256"] = decoded.sha256.hex()
            raise

    def _reject(self, path: Path, signature: Signature, error: InvalidError, fingerprint: bytes) -> None:
        applied = Applied(
            name=path.name, sha256=bytes.fromhex(error.details["sha256"]), signature=signature, done=False
        )
        reject = Reject(
            line=int(error.details.get("line", self._form.header_row)),
            code=RejectCode(error.details["code"]),
            field="",
            message=error.message,
            original=b"",
        )
        self._set_aside(path.name, reject)
        self._memory.remember(applied, fingerprint)

    def _settle(self, path: Path, known: Applied) -> None:
        if known.done:
            self._after_success.apply(path, self._ready_when.markers(path), known.sha256)

    def finish(self, portion: "FolderFile", fingerprint: bytes) -> None:
        """Remember a published file, and move it away if that is wanted."""
        applied = Applied(name=portion.name, sha256=portion.sha256, signature=portion.signature, done=True)
        self._memory.remember(applied, fingerprint)
        self._settle(portion.path, applied)

    @property
    def form(self) -> CsvFormat:
        """How its files are read."""
        return self._form

    @property
    def replaces(self) -> Replaces:
        """What its files stand for."""
        return self._replaces


class FolderFile(CsvPortion):
    """A file of a drop folder."""

    def __init__(
        self, path: Path, sha256: bytes, encoding: str, signature: Signature, folder: Folder, fingerprint: bytes
    ) -> None:
        super().__init__(
            path,
            identity=sha256[:16],
            encoding=encoding,
            form=folder.form,
            replaces=folder.replaces,
            signature=signature,
        )
        self.sha256 = sha256
        self._folder = folder
        self._fingerprint = fingerprint

    def done(self) -> None:
        """Let the folder remember it."""
        self._folder.finish(self, self._fingerprint)
