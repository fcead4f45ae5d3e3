"""A folder as a sink: numbered parts, JSON lines or CSV, each whole or not there.

    part-00000001.jsonl            the records of one release, in order
    part-00000001.manifest.json    rows, SHA-256, the positions before and after: the part counts once this is there
    position.json                  only where releases without records have moved the position since the last part

Every file is written beside its name, flushed to disk, and renamed. The manifest is the last: a part without one is the
remnant of a crash and is written again, and a reader that looks at manifests never sees half a release. Each line says
which record it is (`_record_key`), since when (`_recorded_at`) and whether it stands or is withdrawn (`_operation`);
readers apply the lines in order.

CSV for spreadsheets: `encoding` utf-8-sig (a byte order mark, without which they take Chinese text for something else)
or gb18030; `neutralise_formulas` puts an apostrophe before texts that a spreadsheet would run (CWE-1236).
"""

import base64
import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from connectors.port import Delivered, SetAside, Written
from connectors.state.quarantine import neutral
from schemas.errors import ConflictError, CorruptError, Reason, UnavailableError

__all__ = ["FileSink"]

_MANIFEST = re.compile(r"part-[0-9]{8}\.manifest\.json")
_OWN = ("_record_key", "_recorded_at", "_operation")


class FileSink:
    """One folder of one grant; see the module."""

    def __init__(
        self,
        folder: Path,
        grant_id: str,
        *,
        form: str = "jsonl",
        encoding: str = "utf-8",
        neutralise_formulas: bool = False,
    ) -> None:
        """Write nothing yet.

        Args:
            folder: of the parts; made if it is not there.
            grant_id: whose records it holds.
            form: `jsonl` or `csv`.
            encoding: of CSV; JSON lines are UTF-8.
            neutralise_formulas: of CSV.
        """
        self._folder = folder
        self._grant = grant_id
        self._form = form
        self._encoding = encoding if form == "csv" else "utf-8"
        self._neutralise = neutralise_formulas
        self._names: list[str] = []

    def prepare(self, schema: pa.Schema) -> None:
        """Make the folder; see `connectors.port.Sink`."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _away(self._folder, error) from error
        self._names = list(schema.names)

    def position(self) -> bytes:
        """Return how far the folder is; see `connectors.port.Sink`."""
        return base64.b64decode(self._last()["after"])

    def write(self, delivered: Delivered, before: bytes, after: bytes, set_aside: SetAside) -> Written:  # noqa: ARG002
        """Write one part; see `connectors.port.Sink`. A folder takes every record, so nothing is set aside."""
        last = self._last()
        if base64.b64decode(last["after"]) != before:
            raise ConflictError(
                Reason.VERSION_CONFLICT,
                f"the position of {self._folder} is not what this process last stored: another one writes to it. Stop "
                "one of them",
            )
        facts = {
            "grant": self._grant,
            "before": base64.b64encode(before).decode(),
            "after": base64.b64encode(after).decode(),
        }
        withdrawn = sum(delivered.withdrawn)
        try:
            if not len(delivered):
                self._put("position.json", _json({**facts, "part": last["part"]}))
                return Written()
            number = int(last["part"]) + 1
            name = f"part-{number:08d}.{self._form}"
            content = self._content(delivered)
            self._put(name, content)
            manifest = {
                **facts,
                "part": number,
                "file": name,
                "rows": len(delivered),
                "withdrawn": withdrawn,
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
                "entry": delivered.entry_id,
            }
            self._put(f"part-{number:08d}.manifest.json", _json(manifest))
        except OSError as error:
            raise _away(self._folder, error) from error
        return Written(upserted=len(delivered) - withdrawn, withdrawn=withdrawn)

    def close(self) -> None:
        """Nothing is held open."""

    def _last(self) -> dict[str, Any]:
        """Return the last manifest, or what stands behind it."""
        try:
            # iterdir says so when the folder is away; glob would find nothing, as if there had never been a part.
            manifests = sorted(each.name for each in self._folder.iterdir() if _MANIFEST.fullmatch(each.name))
            last: dict[str, Any] = {"part": 0, "after": "", "grant": self._grant}
            if manifests:
                last = json.loads((self._folder / manifests[-1]).read_bytes())
            idle = self._folder / "position.json"
            if idle.exists():
                told = json.loads(idle.read_bytes())
                if told["part"] == last["part"]:
                    last = told
        except OSError as error:
            raise _away(self._folder, error) from error
        except (ValueError, KeyError) as error:
            raise CorruptError(
                Reason.INTERNAL, f"a manifest in {self._folder} cannot be read; restore it, or begin in another folder"
            ) from error
        if last["grant"] != self._grant:
            raise ConflictError(
                Reason.CONFIG_INVALID, f"{self._folder} holds another grant's records; give this one its own folder"
            )
        return last

    def _content(self, delivered: Delivered) -> bytes:
        records = iter(delivered.records.to_pylist())
        lines = [
            (
                {"_record_key": key.hex(), "_recorded_at": _moment(at), "_operation": "withdrawn"}
                if withdrawn
                else {
                    "_record_key": key.hex(),
                    "_recorded_at": _moment(at),
                    "_operation": "upsert",
                    **{name: _told(value) for name, value in next(records).items()},
                }
            )
            for key, at, withdrawn in zip(delivered.keys, delivered.recorded_at, delivered.withdrawn, strict=True)
        ]
        if self._form == "jsonl":
            return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        return self._csv(lines)

    def _csv(self, lines: Sequence[Mapping[str, Any]]) -> bytes:
        buffer = io.StringIO()
        writer = csv.writer(buffer)
        names = [*_OWN, *self._names]
        writer.writerow(names)
        for line in lines:
            writer.writerow([self._cell(line.get(name)) for name in names])
        return buffer.getvalue().encode(self._encoding)

    def _cell(self, value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, str):
            return neutral(value) if self._neutralise else value
        return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)

    def _put(self, name: str, content: bytes) -> None:
        part = self._folder / f".{name}.part"
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.rename(self._folder / name)
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _moment(at: int) -> str:
    return datetime.fromtimestamp(at // 1_000_000, UTC).replace(microsecond=at % 1_000_000).isoformat()


def _told(value: Any) -> Any:
    """Return a value as JSON has it: decimals as text, so that no reader rounds them; bytes in base64."""
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {name: _told(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_told(each) for each in value]
    return value


def _json(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts, indent=2).encode() + b"\n"


def _away(folder: Path, error: OSError) -> UnavailableError:
    return UnavailableError(
        Reason.TARGET_UNAVAILABLE, f"{folder} cannot be written ({error.strerror}); is there room, and permission?"
    )
