"""Tags of rows and entries for tests: fixed keys, and a list of the rows that were refused."""

from exchange.audit.entry_tags import ENTRY_ROLES, EntryTags
from registry.database.row_tags import RowTags

KEY = bytes(range(32))


ENTRY_KEYS = {role: KEY + role.encode() for role in ENTRY_ROLES}


def entry_tags(role: str = "gateway") -> EntryTags:
    """Return tags of entries made with the tests' keys, those of all roles."""
    return EntryTags(ENTRY_KEYS, role)


def row_tags(refused: list[tuple[str, str]] | None = None) -> RowTags:
    """Return tags made with the tests' key; *refused* gets table and key of each row that is refused."""
    found = [] if refused is None else refused
    return RowTags(lambda family: KEY + family.encode(), report=lambda table, key: found.append((table, key)))
