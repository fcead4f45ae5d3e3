"""List of confirmed erasures in the data folder (`erasures.jsonl`): one JSON object a line, only ever appended to.

Each line has a message authentication code, so that nobody has values destroyed, as if two persons had decided it, by a
line of his own. The list is outside the database, so that a restored database does not bring erased values back: what
the list has and the database does not is carried out before the pool serves. Copy it with each backup, and put the
newest one back.
"""

import hmac
import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from typing_extensions import override

from exchange.erasure.erasures import Erasure, ErasureList, ErasureState
from schemas.errors import CorruptError, PoolError, Reason, UnavailableError
from schemas.names import Topic

__all__ = ["FileErasureList"]


class FileErasureList(ErasureList):
    """List in a file of mode 0600.

    Args:
        file: where; it need not exist yet.
        key: returns the key of the lines' codes, 32 bytes.
    """

    def __init__(self, file: Path, key: Callable[[], bytes]) -> None:
        self._file = file
        self._key = key

    @override
    def add(self, erasure: Erasure) -> None:
        value = {
            "id": erasure.id,
            "topic": str(erasure.topic),
            "pseudonym": erasure.key.hex(),
            "partition": erasure.partition,
            "before": erasure.before,
            "reason": erasure.reason,
            "proposed_by": erasure.proposed_by,
            "proposed_at": erasure.proposed_at.isoformat(),
            "decided_by": erasure.decided_by,
            "decided_at": None if erasure.decided_at is None else erasure.decided_at.isoformat(),
        }
        line = json.dumps({**value, "mac": self._mac(value)}, ensure_ascii=False)
        try:
            descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                # One write, so that two gateways do not mix their lines; the first newline ends what a crash cut off.
                os.write(descriptor, f"\n{line}\n".encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise UnavailableError(
                Reason.DISK_FULL,
                f"{self._file} cannot be written ({error.strerror}); the erasure is confirmed and is written again",
                retry_after=10.0,
            ) from error

    @override
    def all(self) -> Sequence[Erasure]:
        try:
            lines = self._file.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise self._unreadable(0) from error
        found: dict[str, Erasure] = {}
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    erasure = self._erasure(line)
                except (ValueError, KeyError, TypeError, PoolError) as error:
                    if not line.endswith("}"):
                        continue  # cut off by a crash; the database has this one, and it is written again
                    raise self._unreadable(number) from error
                found[erasure.id] = erasure
        return list(found.values())

    def _unreadable(self, number: int) -> CorruptError:
        return CorruptError(
            Reason.LOG_CORRUPT,
            f"line {number} of {self._file} is no erasure that this pool wrote; restore it from the backup: without "
            "it erased values may come back",
        )

    def _mac(self, value: Mapping[str, Any]) -> str:
        content = json.dumps(value, ensure_ascii=False, sort_keys=True).encode()
        return hmac.digest(self._key(), content, "sha256").hex()

    def _erasure(self, line: str) -> Erasure:
        value = json.loads(line)
        if not hmac.compare_digest(value.pop("mac"), self._mac(value)):
            raise ValueError("another code than the pool's")
        return _erasure(value)


def _erasure(value: Mapping[str, Any]) -> Erasure:
    decided = value["decided_at"]
    return Erasure(
        id=value["id"],
        topic=Topic.parse(value["topic"]),
        key=bytes.fromhex(value["pseudonym"]),
        partition=value["partition"],
        before=value["before"],
        reason=value["reason"],
        state=ErasureState.CONFIRMED,
        proposed_by=value["proposed_by"],
        proposed_at=datetime.fromisoformat(value["proposed_at"]),
        decided_by=value["decided_by"],
        decided_at=None if decided is None else datetime.fromisoformat(decided),
    )
