"""Duty of a request: whether it is within its department's duty list (权责清单), and in words for who decides."""

from exchange.duties.model import check_covered
from exchange.duties.store import DutyStore
from registry.database.unit_of_work import Reader
from schemas.access import Allow, Deny, Grant
from schemas.errors import CorruptError, RefusedError

__all__ = ["decide_duty", "describe_duty"]


def decide_duty(reader: Reader, duties: DutyStore, draft: Grant) -> Allow | Deny:
    """Decide whether a request names an item of its department's duty list to which its purpose belongs.

    Raises:
        CorruptError: ROW_FORGED.
    """
    try:
        check_covered(
            has_list=bool(duties.count(reader, draft.consumer, 1)),
            item=duties.get(reader, draft.consumer, draft.duty) if draft.duty else None,
            duty=draft.duty,
            purpose=draft.purpose,
        )
    except RefusedError as error:
        return Deny(error.reason, error.message)
    return Allow()


def describe_duty(reader: Reader, duties: DutyStore, grant: Grant) -> list[str]:
    """Return what an approver must know of a request's duty, as it is on the list now."""
    if not grant.duty:
        listed = bool(duties.count(reader, grant.consumer, 1))
        return ["no duty is named: it was asked for before the department had a duty list"] if listed else []
    try:
        item = duties.get(reader, grant.consumer, grant.duty)
    except CorruptError:
        return [f"duty {grant.duty}: the row of the list is damaged, and says nothing"]
    if item is None:
        return [f"duty {grant.duty}: the department's list has it no more"]
    fits = "" if grant.purpose in item.purposes else "; the purpose does not belong to it any more"
    retired = "" if item.active else "; it is retired"
    return [f"duty {item.code} {item.name} ({item.legal_basis}){fits}{retired}"]
