"""Response cache: serialized schemas by id.

The schema of an id never changes, so its response is made once. Who may read it does change: a cached response is sent
only after access was decided, in the handler or in the check before it.
"""

import threading
from dataclasses import dataclass

from starlette.responses import Response

__all__ = ["IMMUTABLE", "CachedSchema", "ResponseCache"]

IMMUTABLE = {"Cache-Control": "private, max-age=86400, immutable"}
_MOST_BYTES = 64 * 1024 * 1024
_OBJECTS = 1_024  # bytes that an entry takes beside its body


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedSchema:
    """What `GET /schemas/ids/{id}` answers.

    Attributes:
        origin: the subject under which the schema was first registered.
        etag: of the response.
        response: with the schema; it is shared, so nothing may change it.
    """

    origin: str
    etag: bytes
    response: Response

    def answer(self, if_none_match: bytes | None) -> Response:
        """Return the response for a client that has what this tag names, None if it has nothing."""
        if if_none_match == self.etag:
            return Response(status_code=304, headers=IMMUTABLE | {"ETag": self.etag.decode()})
        return self.response


class ResponseCache:
    """Holds responses within a bound of bytes. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_id: dict[int, CachedSchema] = {}
        self._size = 0

    def get(self, schema_id: int) -> CachedSchema | None:
        """Return what is cached for an id."""
        return self._by_id.get(schema_id)

    def put(self, schema_id: int, origin: str, body: bytes) -> CachedSchema:
        """Cache the serialized schema of an id, first registered under a subject."""
        etag = f'"{schema_id}"'
        found = CachedSchema(
            origin=origin,
            etag=etag.encode(),
            response=Response(body, media_type="application/json", headers=IMMUTABLE | {"ETag": etag}),
        )
        with self._lock:
            if schema_id not in self._by_id:
                if self._size > _MOST_BYTES:
                    self._by_id.clear()
                    self._size = 0
                self._size += len(body) + _OBJECTS
                self._by_id[schema_id] = found
        return found
