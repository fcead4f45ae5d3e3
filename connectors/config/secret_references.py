"""Secret references: `${env:NAME}` and `${file:/path}`, resolved as late as possible and never printed."""

import os
import re
from pathlib import Path

from schemas.errors import InvalidError, Reason

__all__ = ["SecretReference", "is_reference"]

_REFERENCE = re.compile(r"\$\{(env|file):([^}]+)\}")


def is_reference(text: str) -> bool:
    """Return whether a text is exactly one reference."""
    return _REFERENCE.fullmatch(text) is not None


class SecretReference:
    """A text that may be a reference; its repr never shows a secret."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return f"Reference({self._text!r})" if is_reference(self._text) else "Reference('…')"

    def resolve(self) -> str:
        """Return the secret; a text that is not a reference is returned as it is.

        Raises:
            InvalidError: CONFIG_INVALID, when the variable is not set or the file cannot be read.
        """
        found = _REFERENCE.fullmatch(self._text)
        if found is None:
            return self._text
        kind, name = found.groups()
        if kind == "env":
            value = os.environ.get(name)
            if value is None:
                raise InvalidError(Reason.CONFIG_INVALID, f"the environment variable {name} is not set")
            return value
        try:
            return Path(name).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise InvalidError(Reason.CONFIG_INVALID, f"the file {name} cannot be read ({error.strerror})") from error
