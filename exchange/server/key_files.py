"""Key files: their paths in the folder of a pool, and what one of them says."""

import json
from collections.abc import Mapping
from pathlib import Path

from schemas.errors import InvalidError, Reason
from schemas.names import Topic
from schemas.record import Positions

__all__ = ["RECORDS_KEY", "read_untagged", "receipts_key", "records_tagged", "untagged_text"]

RECORDS_KEY = "stored-records"
"""Name of the key of the tags of stored records."""


def receipts_key(folder: Path) -> Path:
    """Return the file of the key that signs receipts, in a pool's folder."""
    return folder / "secrets" / "receipts.key"


def records_tagged(folder: Path) -> Path:
    """Return the file that says that the records of before have had their first tags: none is tagged later.

    It is kept beside the keys and not in the database, whose administrator could remove it and have records tagged that
    the pool did not write.
    """
    return folder / "secrets" / "records-tagged"


def untagged_text(untagged: Mapping[Topic, tuple[int, Positions]]) -> bytes:
    """Return the content of that file: up to where records of Kafka have no tags, by topic, with its generation."""
    return json.dumps({str(topic): [generation, *at] for topic, (generation, at) in untagged.items()}).encode() + b"\n"


def read_untagged(file: Path) -> dict[Topic, tuple[int, Positions]]:
    """Read that file.

    Raises:
        InvalidError: CONFIG_INVALID, it cannot be read.
    """
    try:
        content = json.loads(file.read_text())
        return {Topic.parse(name): (int(numbers[0]), tuple(map(int, numbers[1:]))) for name, numbers in content.items()}
    except (OSError, ValueError, IndexError, AttributeError, TypeError) as error:
        raise InvalidError(
            Reason.CONFIG_INVALID, f"{file} cannot be read; restore it from the backup of the keys"
        ) from error
