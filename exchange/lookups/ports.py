"""Ports of look-ups: the objects that do single steps, by name.

(5) WriterTexts         schemas of golden records                exchange/records/writer_schemas.py
(5) GrantViews          the rows and fields that a grant shows   exchange/records/view_cache.py
(6) SubjectPseudonyms   identifiers → pseudonyms of the trace    exchange/identity/audit_pseudonyms.py
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from registry.database.unit_of_work import Reader
from schemas.access import Grant
from schemas.names import Topic
from schemas.record import Packed

__all__ = ["GrantViews", "Shown", "SubjectPseudonyms", "WriterTexts"]


class Shown(Protocol):
    """Output of a view applied to n values."""

    @property
    def selected(self) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        """N truth values: the row is shown."""
        ...

    @property
    def values(self) -> Packed:
        """The selected rows' values, in order."""
        ...


class GrantViews(Protocol):
    """Applies the views of grants, perhaps in an engine process."""

    def apply(self, grant: Grant, values: Sequence[bytes | None]) -> Shown:
        """Apply the grant's view to framed values."""
        ...


class WriterTexts(Protocol):
    """Schemas under which golden records of a resource are written."""

    def latest(self, reader: Reader, topic: Topic) -> tuple[int, str]:
        """Return id and text of the latest schema.

        Raises:
            InvalidError: SUBJECT_UNKNOWN.
        """
        ...

    def text(self, reader: Reader, schema_id: int) -> str:
        """Return a schema's text.

        Raises:
            InvalidError: SCHEMA_UNKNOWN.
        """
        ...


class SubjectPseudonyms(Protocol):
    """Replaces identifiers by keyed hashes (HMAC) under the key of the month."""

    def subjects(self, identifiers: Sequence[tuple[str, str]]) -> tuple[str, bytes, list[bytes]]:
        """Return epoch, fingerprint of its key, and the 16-byte pseudonym of each (type, number), in order."""
        ...
