"""Rules of accounts: names, staff numbers, which roles one person may hold, how long a token is valid. Pure.

An account has one role and names its person by a staff number (工号). A person may hold two accounts only where the
pair of roles is listed here, and in one department: what is not listed is refused. So nobody holds two offices that
check each other, and the account of a person who has moved to another department is revoked before the next is made.

A staff number is unique in the pool. Where two departments number their staff alike, put the department's own letters
before it (`GA-000123`). It is no national identity number, and one is refused.
"""

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from exchange.identity.store import Account
from schemas.access import Role
from schemas.errors import InvalidError, Reason, RefusedError

__all__ = ["LONGEST_TOKEN", "PERMITTED_PAIRS", "POOL_ROLES", "check_account", "check_person", "staff_number"]

LONGEST_TOKEN: Final = timedelta(days=90)
"""How long a token is valid at most."""

POOL_ROLES: Final = frozenset({Role.DATA_AUTHORITY, Role.OPERATOR, Role.AUDITOR})
"""Roles of the pool itself: their accounts belong to no department."""

PERMITTED_PAIRS: Final = frozenset(
    {
        frozenset({Role.CATALOGUE_EDITOR, Role.SHARING_OFFICE_HEAD}),
        frozenset({Role.CATALOGUE_EDITOR, Role.SECURITY_OFFICER}),
    }
)
"""Roles that one person may hold at the same time, in accounts of one department."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_STAFF_NUMBER = re.compile(r"[A-Z0-9](?:[A-Z0-9._-]{0,30}[A-Z0-9])?")
_IDENTITY_NUMBER = re.compile(r"\d{17}[0-9X]|\d{15}")  # GB 11643, and the 15 digits of before 1999
_MOBILE = re.compile(r"1\d{10}")


def staff_number(text: str) -> str:
    """Return a staff number in its one form, upper case, so that one person has one.

    Raises:
        InvalidError: NAME_INVALID, another form, or what looks like an identity or mobile number.
    """
    number = text.strip().upper()
    bare = re.sub(r"[._-]", "", number)
    if _IDENTITY_NUMBER.fullmatch(bare) or _MOBILE.fullmatch(bare):
        raise InvalidError(
            Reason.NAME_INVALID,
            "got what looks like an identity or mobile number; expected the staff number (工号), which the pool stores "
            "in clear",
        )
    if not _STAFF_NUMBER.fullmatch(number):
        raise InvalidError(
            Reason.NAME_INVALID,
            "got a staff number of another form; expected A-Z, 0-9, '.', '_' and '-', 32 characters at most",
        )
    return number


def check_account(name: str, role: Role, department: str) -> None:
    """Check that name, role and department of an account go together.

    Raises:
        InvalidError: NAME_INVALID; REQUEST_INVALID, a role and a department that do not go together, or a role that is
            no person's.
    """
    if not _NAME.fullmatch(name):
        raise InvalidError(
            Reason.NAME_INVALID,
            "got an account name of another form; expected a-z, 0-9, '.', '_' and '-', 64 characters at most",
        )
    if role in {Role.CONNECTOR, Role.BOOTSTRAP}:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"got the role {role}, which no person holds; a connector is invited, `pool init` makes the first token",
        )
    if (role in POOL_ROLES) is bool(department):
        expected = "no department" if role in POOL_ROLES else "a department"
        raise InvalidError(Reason.REQUEST_INVALID, f"an account with the role {role} has {expected}")


def check_person(person: str, role: Role, department: str, held: Iterable[Account]) -> None:
    """Check that a person may hold an account, beside those that it *held* or holds.

    Raises:
        RefusedError: ROLE_FORBIDDEN, the person holds an account that does not go with it.
    """
    for other in held:
        if other.person != person or other.revoked_at is not None:
            continue
        if other.department != department:
            raise RefusedError(
                Reason.ROLE_FORBIDDEN,
                f"the person holds the account {other.name!r} of another department, or of the pool; revoke that one "
                "first, or, where two departments number their staff alike, put the department's letters before it",
            )
        if frozenset({other.role, role}) not in PERMITTED_PAIRS:
            raise RefusedError(
                Reason.ROLE_FORBIDDEN,
                f"the person holds the account {other.name!r}; one person does not hold {other.role} and {role}",
            )
