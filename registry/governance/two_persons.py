"""Two-person rule (四眼原则): whether a second signature comes from another person than the first. Pure.

An account names its person by a staff number (工号), and one person may have several accounts, so two accounts are not
two persons. Every act that needs a second signature compares persons here: approvals of grants, approvals that lower a
classification, and the confirmation of accounts and invitations.

Unknown is refused: an account of an earlier version names no person, and could be anybody's.
"""

from collections.abc import Mapping

from schemas.access import Deny
from schemas.errors import Reason

__all__ = ["refuse_second_signature"]


def refuse_second_signature(first: str, second: str, persons: Mapping[str, str]) -> Deny | None:
    """Return the denial of a second signature, None where it comes from another person than the first.

    Args:
        first: account that asked, proposed or requested.
        second: account that wants to decide or confirm.
        persons: account name → staff number; an account that is not in it, or has an empty one, is of an unknown
            person.
    """
    person = persons.get(second, "")
    if first == second or (person and person == persons.get(first, "")):
        return Deny(Reason.SAME_PERSON, "who requested does not decide; another person must")
    for account in (second, first):
        if not persons.get(account):
            return Deny(
                Reason.PERSON_UNKNOWN,
                f"the account {account[:64]!r} names no person, so it is unknown whether two persons sign; two others "
                "must set its staff number first (`pool user set-person`)",
            )
    return None
