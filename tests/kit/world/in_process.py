"""The project's programs in the process of the test: seconds faster than a process, which imports everything first.

For what does not depend on being a process. At least one test of each program starts a real one.
"""

import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO, TextIOWrapper
from subprocess import CompletedProcess
from unittest.mock import patch


def run(main: Callable[[], None], *arguments: object) -> CompletedProcess[str]:
    """Call a program's main function as its entry point does; return its exit code and its output."""
    command = ["program", *map(str, arguments)]
    out, err = (TextIOWrapper(BytesIO(), encoding="utf-8", newline="", write_through=True) for _ in range(2))
    code = 0
    with patch.object(sys, "argv", command), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return CompletedProcess(command, code, _text(out), _text(err))


def _text(stream: TextIOWrapper) -> str:
    written = stream.buffer
    assert isinstance(written, BytesIO)
    return written.getvalue().decode()
