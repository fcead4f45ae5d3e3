"""How answers and refusals look on a terminal."""

import json
import sys
from typing import Any

from schemas.errors import PoolError, UnavailableError

__all__ = ["fail", "show"]


def show(value: Any) -> None:
    """Print a document as JSON, readable on a terminal."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def fail(error: PoolError) -> int:
    """Print an error for a person, on standard error; give the exit code: 1 the caller's, 2 circumstances."""
    print(f"{error.reason}: {error.message}", file=sys.stderr)
    for name, value in error.details.items():
        print(f"  {name}: {value}", file=sys.stderr)
    return 2 if isinstance(error, UnavailableError) else 1
