"""Folder as a sink: numbered parts of JSON lines, CSV or Parquet, each written atomically.

    part-00000001.jsonl            the records of one release, in order
    part-00000001.manifest.json    rows, SHA-256, the positions before and after: the part counts once this exists
    position.json                  only where releases without records have moved the position since the last part

Every file is written under a temporary name, flushed to disk, and renamed. The manifest is the last: a part without one
was left by a crash and is written again, and a reader of manifests never sees half a release. Each line has the key of
its record (`_record_key`), its time (`_recorded_at`) and whether it is valid or withdrawn (`_operation`); readers apply
the lines in order.

Parquet keeps the types of the view (`connectors.sinks.parquet_part`); a withdrawn record's fields are null.

CSV for spreadsheets: `encoding` utf-8-sig (a byte order mark, without which they misread Chinese text) or gb18030;
`neutralise_formulas` puts an apostrophe before texts that a spreadsheet would execute (CWE-1236).
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from typing_extensions import override

from connectors.port import DecodedRelease, QuarantineCallback, RejectedRecord, Sink, WriteResult
from connectors.sinks.atomic_file import OWNER_ALONE, make_folder, replace_file
from connectors.sinks.field_names import require_names
from connectors.sinks.parquet_part import parquet_part, require_parquet
from connectors.sinks.text_lines import csv_lines, json_lines, release_lines
from schemas.errors import ConflictError, CorruptError, Reason, UnavailableError

__all__ = ["FileSink"]

_GROUP_READS, _GROUP_ENTERS = 0o640, 0o750
_MANIFEST = re.compile(r"part-[0-9]{8}\.manifest\.json")
_OWN_COLUMNS = ("_record_key", "_recorded_at", "_operation")


class FileSink(Sink):
    """One folder of one grant."""

    def __init__(
        self,
        folder: Path,
        grant_id: str,
        *,
        file_format: str = "jsonl",
        encoding: str = "utf-8",
        neutralise_formulas: bool = False,
        group_reads: bool = False,
    ) -> None:
        """Configure; write nothing yet.

        Args:
            folder: of the parts; made if it does not exist.
            grant_id: whose records it holds.
            file_format: `jsonl`, `csv` or `parquet`.
            encoding: of CSV; JSON lines are UTF-8.
            neutralise_formulas: of CSV.
            group_reads: the group of the folder's user may read the files; else nobody but that user.
        """
        self._folder = folder
        self._grant = grant_id
        self._file_format = file_format
        self._encoding = encoding if file_format == "csv" else "utf-8"
        self._neutralise = neutralise_formulas
        self._mode = _GROUP_READS if group_reads else OWNER_ALONE
        self._names: list[str] = []

    @override
    def check(self, schema: pa.Schema) -> None:
        require_names(schema)
        if self._file_format == "parquet":
            require_parquet(schema)

    @override
    def prepare(self, schema: pa.Schema) -> None:
        self.check(schema)
        try:
            make_folder(self._folder, _GROUP_ENTERS if self._mode == _GROUP_READS else 0o700)
        except OSError as error:
            raise _unavailable(self._folder, error) from error
        self._names = list(schema.names)

    @override
    def position(self) -> bytes:
        return base64.b64decode(self._last_manifest()["after"])

    @override
    def write(
        self, release: DecodedRelease, before: bytes, after: bytes, quarantine: QuarantineCallback
    ) -> WriteResult:
        last = self._last_manifest()
        if base64.b64decode(last["after"]) != before:
            raise ConflictError(
                Reason.VERSION_CONFLICT,
                f"the position of {self._folder} is not what this process last stored: another one writes to it. Stop "
                "one of them",
            )
        header = {
            "grant": self._grant,
            "before": base64.b64encode(before).decode(),
            "after": base64.b64encode(after).decode(),
        }
        withdrawn = sum(release.withdrawn)
        try:
            if not len(release):
                self._write_atomically("position.json", _json({**header, "part": last["part"]}))
                return WriteResult()
            number = int(last["part"]) + 1
            name = f"part-{number:08d}.{self._file_format}"
            content, rejected = self._content(release)
            if rejected:
                quarantine(rejected)
            self._write_atomically(name, content)
            manifest = {
                **header,
                "part": number,
                "file": name,
                "rows": len(release) - len(rejected),
                "withdrawn": withdrawn,
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
                "entry": release.entry_id,
            }
            self._write_atomically(f"part-{number:08d}.manifest.json", _json(manifest))
        except OSError as error:
            raise _unavailable(self._folder, error) from error
        return WriteResult(upserted=len(release) - withdrawn - len(rejected), withdrawn=withdrawn, rejected=rejected)

    @override
    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _last_manifest(self) -> dict[str, Any]:
        """Return the last manifest, or `position.json` where it is later."""
        try:
            # iterdir raises when the folder is missing; glob would find nothing, as if there had never been a part.
            manifests = sorted(each.name for each in self._folder.iterdir() if _MANIFEST.fullmatch(each.name))
            last: dict[str, Any] = {"part": 0, "after": "", "grant": self._grant}
            if manifests:
                last = json.loads((self._folder / manifests[-1]).read_bytes())
            position_file = self._folder / "position.json"
            if position_file.exists():
                stored = json.loads(position_file.read_bytes())
                if stored["part"] == last["part"]:
                    last = stored
        except OSError as error:
            raise _unavailable(self._folder, error) from error
        except (ValueError, KeyError) as error:
            raise CorruptError(
                Reason.INTERNAL, f"a manifest in {self._folder} cannot be read; restore it, or begin in another folder"
            ) from error
        if last["grant"] != self._grant:
            raise ConflictError(
                Reason.CONFIG_INVALID, f"{self._folder} holds another grant's records; give this one its own folder"
            )
        return last

    def _content(self, release: DecodedRelease) -> tuple[bytes, list[RejectedRecord]]:
        """Return a part, and the records that it cannot hold."""
        if self._file_format == "parquet":
            return parquet_part(release), []
        lines, rejected = release_lines(release, as_json=self._file_format == "jsonl")
        if self._file_format == "jsonl":
            return json_lines(lines).encode(), rejected
        names = [*_OWN_COLUMNS, *self._names]
        text = csv_lines(lines, names, header=True, neutralise_formulas=self._neutralise)
        return text.encode(self._encoding), rejected

    def _write_atomically(self, name: str, content: bytes) -> None:
        replace_file(self._folder, name, content, self._mode)


def _json(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, indent=2).encode() + b"\n"


def _unavailable(folder: Path, error: OSError) -> UnavailableError:
    return UnavailableError(
        Reason.TARGET_UNAVAILABLE, f"{folder} cannot be written ({error.strerror}); is there room, and permission?"
    )
