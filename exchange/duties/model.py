"""Duty lists (权责清单): what a department has to do by law, and the purposes that belong to each of its duties. Pure.

A request names the item for which the records are needed (State Council decree 809, Art. 20), and the item has the
request's purpose. A department that has a list asks within it alone; one without a list asks as before.

An item that a department no longer has is retired and stays, since grants of before name it.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from schemas.errors import ConflictError, InvalidError, Reason, RefusedError

__all__ = ["MOST_ITEMS", "DutyItem", "check_covered", "check_item", "cursor_of", "retired", "split_cursor"]

MOST_ITEMS: Final = 1_000
"""Items of one department's list."""

_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MOST_TEXT = 500  # characters
_MOST_PURPOSES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class DutyItem:
    """One item of a department's duty list.

    Attributes:
        department: id.
        code: of the item, unique in the list (事项编码).
        name: of the duty, in words.
        legal_basis: law and article that give the department this duty.
        purposes: ids of the purposes that belong to it, sorted.
        active: may be asked for; a retired item stays.
        changed_by: account that wrote it last.
        changed_at: aware.
    """

    department: str
    code: str
    name: str
    legal_basis: str
    purposes: tuple[str, ...]
    active: bool = True
    changed_by: str
    changed_at: datetime

    @property
    def id(self) -> str:
        """Return department and code as one text; it is also the cursor of a list behind the item."""
        return cursor_of(self.department, self.code)


def cursor_of(department: str, code: str) -> str:
    """Return the cursor of a list after an item."""
    return f"{department}:{code}"


def split_cursor(cursor: str) -> tuple[str, str]:
    """Return department and code of a cursor; of the empty one, what stands before every item."""
    department, _, code = cursor.partition(":")
    return department, code


def check_item(item: DutyItem, purposes: Collection[str]) -> None:
    """Check an item before it is stored.

    Args:
        item: as it is to be.
        purposes: ids of the pool's purposes that may be asked for.

    Raises:
        InvalidError: REQUEST_INVALID, naming all that is wrong.
    """
    unknown = [purpose for purpose in item.purposes if purpose not in purposes]
    faults = [
        (not _CODE.fullmatch(item.code), "a code of 1 to 64 letters, digits, '.', '_' and '-'"),
        (not item.name.strip() or len(item.name) > _MOST_TEXT, f"a name of at most {_MOST_TEXT} characters"),
        (
            not item.legal_basis.strip() or len(item.legal_basis) > _MOST_TEXT,
            f"a legal basis, law and article, of at most {_MOST_TEXT} characters",
        ),
        (not 1 <= len(item.purposes) <= _MOST_PURPOSES, f"1 to {_MOST_PURPOSES} purposes"),
        (len(set(item.purposes)) != len(item.purposes), "each purpose once"),
        (bool(unknown), f"purposes of the pool's list, which has no {', '.join(unknown[:5])}"),
    ]
    wrong = [expected for is_wrong, expected in faults if is_wrong]
    if wrong:
        raise InvalidError(Reason.REQUEST_INVALID, f"the duty cannot be stored: expected {'; '.join(wrong)}")


def retired(item: DutyItem, *, by: str, at: datetime) -> DutyItem:
    """Return an item that may be asked for no longer.

    Raises:
        ConflictError: TRANSITION_NOT_ALLOWED, it is retired already.
    """
    if not item.active:
        raise ConflictError(Reason.TRANSITION_NOT_ALLOWED, "the duty is retired already")
    return replace(item, active=False, changed_by=by, changed_at=at)


def check_covered(*, has_list: bool, item: DutyItem | None, duty: str, purpose: str) -> None:
    """Check that a request stays within its department's duty list.

    Args:
        has_list: whether the department has any item, a retired one too.
        item: the one that the request names; None = there is none of this code.
        duty: the code that it names; empty = none.
        purpose: the request's.

    Raises:
        RefusedError: OUTSIDE_DUTY.
    """
    if not has_list and not duty:
        return
    if item is not None and item.active and purpose in item.purposes:
        return
    if not duty:
        got = "no duty, and the department has a duty list"
    elif item is None:
        got = "a duty that is not on the department's list"
    elif not item.active:
        got = "a duty that is retired"
    else:
        got = "a duty to which the purpose does not belong"
    raise RefusedError(
        Reason.OUTSIDE_DUTY,
        f"got {got}; expected in `duty` the code of an item of your department's list that has the purpose of the "
        "request; see `pool duty list` (decree 809, Art. 20)",
    )
