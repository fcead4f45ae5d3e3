"""Log output on standard error, which never fails: a line that cannot be written is dropped and counted.

Standard error is often a file. When its disk is full, or its reader has ended, each line raises an error; without this,
that error would end the thread that only wanted to say something, such as the sequencer's.
"""

import io
import sys

from typing_extensions import override

from exchange import metrics

__all__ = ["LossyStream"]


class LossyStream(io.StringIO):
    """Standard error as it is at each write."""

    @override
    def write(self, text: str, /) -> int:
        try:
            sys.stderr.write(text)
        except (OSError, ValueError):  # no room, no reader, or closed
            metrics.LOG_LINES_LOST.inc()
        return len(text)

    @override
    def flush(self) -> None:
        try:
            sys.stderr.flush()
        except (OSError, ValueError):
            metrics.LOG_LINES_LOST.inc()
