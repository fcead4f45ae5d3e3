"""Rows of grants as the database has them, for verification."""

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from exchange.audit.verify_database import GrantRow

__all__ = ["stored_grants"]

_CURRENT = sa.text("SELECT id, version, text, hash, consumer, provider, topic, state, expires FROM access_grant")
_VERSIONS = sa.text("SELECT grant_id AS id, version, text, hash FROM access_grant_version")
_COLUMNS = ("id", "version", "consumer", "provider", "topic", "state")


def stored_grants(connection: sa.Connection) -> Iterator[GrantRow]:
    """Yield every row of a grant: the current ones, then those of all versions.

    A grant is found by columns that its MAC does not cover: with another consumer in its row it would be left out of
    what is decided on together, with another state nobody would suspend it. So each is compared with the text.
    """
    for statement, is_current in ((_CURRENT, True), (_VERSIONS, False)):
        for row in connection.execute(statement):
            yield GrantRow(row.id, row.version, _sha256(row.text), tuple(_differing(row)), is_current)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _differing(row: Any) -> Iterator[str]:
    try:
        says = json.loads(row.text)
        for name in _COLUMNS:
            if hasattr(row, name) and getattr(row, name) != says[name]:
                yield name
        if hasattr(row, "expires") and row.expires != datetime.fromisoformat(says["expires"]):
            yield "expires"
    except (ValueError, KeyError, TypeError):
        yield "text"
    if bytes(row.hash).hex() != _sha256(row.text):
        yield "hash"
