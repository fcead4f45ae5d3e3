"""What ids stand for, as the bytes of the answer.

An id's meaning never changes, so its answer is made once. Whether it may be read does change, so that is asked each
time: `open_` says whether everybody who reaches the registry, known or not, may read a schema by its id without leaving
an entry; so it is under --dev alone. Elsewhere the call goes through identification and the gate, which both wait for
the database, and gets the same bytes from here once it has passed: `held`.
"""

import re
import threading
from collections.abc import Callable

__all__ = ["CACHED", "ResponseCache"]

CACHED = "private, max-age=86400, immutable"
_PATH = re.compile(rb"/schemas/ids/([1-9][0-9]{0,9})/?")
_MOST_BYTES = 64 * 1024 * 1024


class ResponseCache:
    """Keeps answers by id, within a bound of bytes.

    Args:
        open_: whether the schema first registered under a subject may be read by anybody.
    """

    def __init__(self, open_: Callable[[str], bool]) -> None:
        self._open = open_
        self._lock = threading.Lock()
        self._answers: dict[bytes, tuple[str, bytes, list[tuple[bytes, bytes]]]] = {}
        self._size = 0

    def keep(self, schema_id: int, origin: str, body: bytes) -> None:
        """Keep an answer.

        Args:
            schema_id: what for.
            origin: the subject under which the schema was first registered.
            body: the answer to `GET /schemas/ids/{schema_id}`.
        """
        headers = [
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", CACHED.encode()),
            (b"etag", b'"%d"' % schema_id),
        ]
        with self._lock:
            if self._size > _MOST_BYTES:
                self._answers.clear()
                self._size = 0
            self._size += len(body)
            self._answers[str(schema_id).encode()] = (origin, body, headers)

    def answer(self, path: bytes, if_none_match: bytes | None) -> tuple[int, bytes, list[tuple[bytes, bytes]]] | None:
        """Return status, body and headers for a path; None where the call must go the long way."""
        found = _PATH.fullmatch(path)
        held = self._answers.get(found[1]) if found else None
        if held is None or not self._open(held[0]):
            return None
        _, body, headers = held
        if if_none_match is not None and if_none_match == headers[2][1]:
            return 304, b"", headers[1:]
        return 200, body, headers

    def held(self, schema_id: int) -> bytes | None:
        """Return the body for an id, for a caller whom the gate has let pass; None where none is kept yet."""
        held = self._answers.get(str(schema_id).encode())
        return held[1] if held else None
