"""Row tags for tests: a fixed key, and a list of the rows that were refused."""

from registry.database.row_tags import RowTags

KEY = bytes(range(32))


def row_tags(refused: list[tuple[str, str]] | None = None) -> RowTags:
    """Return tags made with the tests' key; *refused* gets table and key of each row that is refused."""
    found = [] if refused is None else refused
    return RowTags(lambda family: KEY + family.encode(), report=lambda table, key: found.append((table, key)))
