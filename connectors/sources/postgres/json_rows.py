"""Rows as JSON, for the quarantine: written when one is asked for, since of most rows none is. Pure."""

import json
from collections.abc import Sequence
from typing import overload

from typing_extensions import override

__all__ = ["JsonRows"]


class JsonRows(Sequence[bytes]):
    """Rows of cells, each as the bytes of a JSON object."""

    def __init__(self, names: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        self._names = names
        self._rows = rows

    @override
    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[bytes]: ...
    @override
    def __getitem__(self, at: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(at, slice):
            return JsonRows(self._names, self._rows[at])
        return json.dumps(dict(zip(self._names, self._rows[at], strict=True)), ensure_ascii=False).encode()
