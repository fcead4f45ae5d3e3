"""Terminal output of `pool`: answers as JSON, errors with their exit code."""

import json
import sys
from typing import Any

from schemas.errors import PoolError, UnavailableError

__all__ = ["fail", "print_json"]


def print_json(value: Any) -> None:
    """Print a document as indented JSON."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def fail(error: PoolError) -> int:
    """Print an error on standard error, and return the exit code: 2 if something is unavailable, else 1."""
    print(f"{error.reason}: {error.message}", file=sys.stderr)
    for name, value in error.details.items():
        print(f"  {name}: {value}", file=sys.stderr)
    return 2 if isinstance(error, UnavailableError) else 1
