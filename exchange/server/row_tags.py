"""Row tags and entry tags of a process: their keys, and the report of rows that are refused."""

import structlog

from exchange import metrics
from exchange.audit.entry_tags import ENTRY_ROLES, EntryTags
from exchange.identity.secrets import Secrets
from exchange.server.roles import Role
from registry.database.row_tags import RowTags

__all__ = ["open_entry_tags", "open_row_tags"]

_log = structlog.get_logger()


def open_row_tags(secrets: Secrets) -> RowTags:
    """Return the tags of a process's stores; each row that is refused is logged and counted."""
    return RowTags(lambda family: secrets.named_key(f"row-tags/{family}"), report=_report)


def open_entry_tags(secrets: Secrets, roles: frozenset[Role]) -> EntryTags:
    """Return the tags of the entries that a process writes, and checks if it is a sequencer.

    Args:
        secrets: the keys.
        roles: of the process; of several, the first writes. Without any it is a command of the operator.
    """
    own = next((str(role) for role in Role if role in roles), "operator")
    needed = ENTRY_ROLES if Role.SEQUENCER in roles else (own,)
    return EntryTags({role: secrets.named_key(f"entries/{role}") for role in needed}, own)


def _report(table: str, key: str) -> None:
    metrics.ROWS_REFUSED.labels(table).inc()
    _log.error("row_refused", table=table, key=key)
