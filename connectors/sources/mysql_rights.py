"""Missing rights of MySQL and MariaDB: the statement that gives them. Pure.

The server names user and table in its refusal, and its driver reports it as it reports a server that is away.
"""

import re

__all__ = ["granting_statement"]

_USER = r"'(?P<user>[^']*)'@'(?P<host>[^']*)'"
_REFUSALS = {
    1044: re.compile(rf"for user {_USER} to database '(?P<database>[^']*)'"),
    1142: re.compile(rf"to user {_USER} for table `(?P<database>[^`]*)`\.`(?P<table>[^`]*)`"),
    1143: re.compile(rf"to user {_USER} for column '[^']*' in table '(?P<table>[^']*)'"),
}


def granting_statement(error: BaseException | None, table: str) -> str:
    """Return the statement with which the database's owner gives the right that was missing; empty for other errors.

    Args:
        error: of the driver: its number, and the server's text.
        table: that was to be read, where the text names none.
    """
    number, text = (*getattr(error, "args", ()), None, None)[:2]
    found = _REFUSALS[number].search(str(text)) if number in _REFUSALS else None
    if found is None:
        return ""
    named = found.groupdict()
    place = [part for part in (named.get("database"), named.get("table") or table.rpartition(".")[2]) if part]
    grantee = f"{_quoted(named['user'])}@{_quoted(named['host'])}"
    return f"GRANT SELECT ON {'.'.join(f'`{part}`' for part in place)} TO {grantee};"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\") + "'"
