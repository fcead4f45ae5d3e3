"""Files that commands of the rules read."""

from pathlib import Path

from schemas.errors import InvalidError, Reason

__all__ = ["read_text"]


def read_text(file: Path) -> str:
    """Return the text of a file.

    Raises:
        InvalidError: CONFIG_INVALID, it cannot be read as UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InvalidError(
            Reason.CONFIG_INVALID, f"{file} cannot be read as UTF-8 text ({type(error).__name__})"
        ) from error
