"""Key files: their paths in the folder of a pool, what one of them says, and the export of those of one role."""

import json
from collections.abc import Mapping
from pathlib import Path

from exchange.identity.keyfile import create_private, private_folder, read_private
from exchange.identity.secrets import FileSecrets
from exchange.server.roles import Role, keys_of
from schemas.errors import InvalidError, Reason
from schemas.names import Topic
from schemas.record import Positions

__all__ = ["RECORDS_KEY", "export_keys", "read_untagged", "receipts_key", "records_tagged", "untagged_text"]

_NOT_SECRET = ("pool.toml", "log.pub", "ca/authority.crt", "ca/server.crt", "ca/server.json")

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


def export_keys(folder: Path, out: Path, role: Role) -> list[str]:
    """Write a folder from which a process of one role can start, with its keys and no others; return the files.

    Args:
        folder: of the pool, with all keys.
        out: empty or absent; mode 0700.
        role: of the process.

    Raises:
        InvalidError: CONFIG_INVALID, a key cannot be read, or *out* is open to others; ALREADY_EXISTS, *out* is not
            empty.
    """
    table = keys_of([role])
    secrets = FileSecrets.open(folder / "secrets")
    if out.exists() and any(out.iterdir()):
        raise InvalidError(Reason.ALREADY_EXISTS, f"{out} is not empty; nothing was changed")
    for part in (out, out / "ca", out / "secrets"):
        private_folder(part)
    (out / "log").mkdir()
    secrets.export(out / "secrets", table.secrets)
    for name in sorted(table.files):
        create_private(out / name, read_private(folder / name))
    for marker in (records_tagged(folder), folder / "secrets" / "restored.json"):
        if role is Role.GATEWAY and marker.exists():
            create_private(out / "secrets" / marker.name, read_private(marker))
    for name in _NOT_SECRET:
        if name.startswith("ca/server") and "ca/server.key" not in table.files:
            continue
        (out / name).write_bytes((folder / name).read_bytes())
    return sorted(str(file.relative_to(out)) for file in out.rglob("*") if file.is_file())
