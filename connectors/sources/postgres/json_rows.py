"""Rows as JSON, for the quarantine: written when one is asked for, since of most rows none is. Pure."""

import json
from collections.abc import Sequence
from typing import overload

import pyarrow as pa
from typing_extensions import override

__all__ = ["JsonColumns", "JsonRows"]


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


class JsonColumns(Sequence[bytes]):
    """Rows of text columns; see `JsonRows`."""

    def __init__(self, names: Sequence[str], columns: Sequence[pa.StringArray]) -> None:
        self._names = names
        self._columns = columns

    @override
    def __len__(self) -> int:
        return len(self._columns[0]) if self._columns else 0

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[bytes]: ...
    @override
    def __getitem__(self, at: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        row = {name: column[at].as_py() for name, column in zip(self._names, self._columns, strict=True)}
        return json.dumps(row, ensure_ascii=False).encode()
