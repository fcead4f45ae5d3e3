"""Logging of `pool serve`: structured lines (structlog) as JSON on standard error, screened for personal numbers."""

import logging
from typing import Any

import structlog
from structlog.typing import EventDict
from typing_extensions import override

from exchange.cli.log_output import LossyStream
from registry.governance.personal_numbers import without_personal_numbers

__all__ = ["log_to_stderr"]


def log_to_stderr() -> None:
    """Send what is at least an information, and of libraries a warning, to standard error.

    What anybody can provoke as often as they like is a line for debugging, and a metric: it must not fill a log.
    """
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _without_personal_numbers,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        logger_factory=structlog.PrintLoggerFactory(LossyStream()),
    )
    handler = logging.StreamHandler(LossyStream())
    handler.addFilter(_ScreenedRecords())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def _without_personal_numbers(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Leave a text out of a log line if it holds a personal number; none should get here, and none may get out."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = without_personal_numbers(value)
    return event


class _ScreenedRecords(logging.Filter):
    """The same for the lines of libraries."""

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = without_personal_numbers(record.getMessage()), ()
        return True
