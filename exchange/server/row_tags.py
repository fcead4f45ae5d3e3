"""Row tags of a process: the keys of the tables' families, and the report of rows that are refused."""

import structlog

from exchange import metrics
from exchange.identity.secrets import Secrets
from registry.database.row_tags import RowTags

__all__ = ["open_row_tags"]

_log = structlog.get_logger()


def open_row_tags(secrets: Secrets) -> RowTags:
    """Return the tags of a process's stores; each row that is refused is logged and counted."""
    return RowTags(lambda family: secrets.named_key(f"row-tags/{family}"), report=_report)


def _report(table: str, key: str) -> None:
    metrics.ROWS_REFUSED.labels(table).inc()
    _log.error("row_refused", table=table, key=key)
