"""Entries as events for a SIEM: syslog (RFC 5424) with structured data, or JSON lines; and the cursor between runs.

Signed entries alone, in the order of the log. An event says who did what, when, to what, with which outcome, and where
the entry is in the log. It holds no case number, no free text, no pseudonym and no position of a record: those stay in
the log, and its reader finds them by the entry's id.

The cursor holds how many entries of the log were sent. It is replaced after they were (rename, fsync), so that each
entry is sent at least once: after a crash, those since the last cursor come again, with the same id.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from exchange.audit.note import NoteKey, open_note, parse_checkpoint
from exchange.audit.search.entry_rows import iso_time
from exchange.audit.tiles import ENTRIES, WIDTH, TileFiles, decode_bundle, tile_width
from schemas.audit import read_leaf
from schemas.errors import CorruptError, InvalidError, Reason
from schemas.merkle import inclusion_proof, leaf_hash, verify_inclusion

__all__ = ["SiemCursor", "event_of", "json_line", "signed_events", "syslog_line"]

_FACILITY: Final = 13  # log audit (RFC 5424, table 1)
_NOTICE, _WARNING = 5, 4
_SD_ID: Final = "pool@32473"  # 32473: the enterprise number for documentation (RFC 5612); the pool has none of its own
_BREAKS: Final = frozenset({0x7F, 0x85, 0x2028, 0x2029})
_FIELDS: Final = (
    "index",
    "entry",
    "action",
    "resource",
    "decision",
    "reason",
    "actor",
    "role",
    "department",
    "grant",
    "purpose",
    "count",
    "times",
    "log",
)


def event_of(origin: str, index: int, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the event of an entry; only these fields leave the log."""
    actor, grant, data = entry.get("actor") or {}, entry.get("grant") or {}, entry.get("data") or {}
    event = {
        "time": iso_time(entry["at"]),
        "index": index,
        "entry": entry["id"],
        "action": entry["action"],
        "resource": entry.get("resource", ""),
        "decision": "failed" if "failed" in data else entry["decision"],
        "reason": entry.get("reason", data.get("failed", "")),
        "actor": actor.get("id", ""),
        "role": actor.get("role", ""),
        "department": actor.get("department", ""),
        "grant": grant.get("id", ""),
        "purpose": entry.get("purpose", ""),
        "count": data.get("count", ""),
        "times": data.get("folded", ""),
        "pool": entry["pool"],
        "log": origin,
    }
    return {name: value for name, value in event.items() if value != ""}


def json_line(event: Mapping[str, Any]) -> str:
    """Return an event as a line of JSON."""
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n"


def syslog_line(event: Mapping[str, Any]) -> str:
    """Return an event as a line of syslog (RFC 5424, section 6), without a line end inside."""
    severity = _NOTICE if event["decision"] == "allow" else _WARNING
    parameters = " ".join(f'{name}="{_escaped(event[name])}"' for name in _FIELDS if name in event)
    header = f"<{_FACILITY * 8 + severity}>1 {event['time']} {_name(event['pool'], 255)} pool {event['index']}"
    return f"{header} {_name(event['action'], 32)} [{_SD_ID} {parameters}]\n"


def _escaped(value: object) -> str:
    """Return a PARAM-VALUE (section 6.3.3): quote, backslash and bracket escaped, control characters as a space."""
    text = "".join(" " if ord(letter) < 32 or ord(letter) in _BREAKS else letter for letter in str(value))
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


def _name(text: str, most: int) -> str:
    """Return a header field: printable ASCII without a space."""
    return "".join(letter if 33 <= ord(letter) <= 126 else "_" for letter in text)[:most] or "-"


@dataclass(frozen=True, slots=True)
class SiemCursor:
    """The file that holds how many entries of a log were sent."""

    file: Path

    def read(self, origin: str) -> int:
        """Return the number of entries that were sent; 0 without a file.

        Raises:
            InvalidError: CONFIG_INVALID, it is the cursor of another log, or none.
        """
        try:
            stored = json.loads(self.file.read_text())
            sent, of = stored["sent"], stored["log"]
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidError(Reason.CONFIG_INVALID, f"{self.file}: is no cursor; take another file") from error
        if of != origin or type(sent) is not int or sent < 0:
            raise InvalidError(Reason.CONFIG_INVALID, f"{self.file}: is the cursor of {of!r}; this log is {origin!r}")
        return sent

    def write(self, origin: str, sent: int) -> None:
        """Replace the cursor, so that a crash leaves the one before or this one."""
        new = self.file.with_name(self.file.name + ".new")
        with new.open("w") as file:
            file.write(json.dumps({"log": origin, "sent": sent}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.file)
        folder = os.open(self.file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def signed_events(folder: Path, key: NoteKey, cursor: SiemCursor) -> Iterator[tuple[str, int, list[dict[str, Any]]]]:
    """Yield the log's origin, the cursor behind, and the events: those behind the cursor, at most 256 at a time.

    Each bundle's entries are checked against the signed root before one of them is yielded.

    Raises:
        InvalidError: SIGNATURE_INVALID, the checkpoint is not signed with this key; CONFIG_INVALID, see the cursor.
        CorruptError: LOG_CORRUPT, an entry does not lead to the signed root, or the log is shorter than the cursor.
    """
    files = TileFiles(folder)
    content = files.read("checkpoint")
    if content is None:
        return
    checkpoint = parse_checkpoint(open_note(content.decode(), [key]))
    sent = cursor.read(checkpoint.origin)
    if sent > checkpoint.size:
        raise CorruptError(
            Reason.LOG_CORRUPT,
            f"{sent} entries were sent, the log has {checkpoint.size}: entries were removed, run `pool audit verify`",
        )
    subtree = files.subtree(checkpoint.size)
    while sent < checkpoint.size:
        number = sent // WIDTH
        first, width = number * WIDTH, tile_width(0, number, checkpoint.size)
        leaves = decode_bundle(files.tile(ENTRIES, number, width) or b"")
        hashes = [leaf_hash(leaf) for leaf in leaves]
        # The path of one leaf holds the hashes of all others of its tile, so it proves each of them.
        proof = inclusion_proof(first, checkpoint.size, subtree)
        if files.tile(0, number, width) != b"".join(hashes) or not verify_inclusion(hashes[0], proof, checkpoint.root):
            raise CorruptError(
                Reason.LOG_CORRUPT,
                f"the entries {first} to {first + width - 1} do not lead to the signed root; run `pool audit verify`",
            )
        events = [
            event_of(checkpoint.origin, index, read_leaf(leaves[index - first])) for index in range(sent, first + width)
        ]
        sent = first + width
        yield checkpoint.origin, sent, events
