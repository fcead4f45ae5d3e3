"""Searches of the log that an auditor and a department make, by name; each must be fast however large the log is."""

from exchange.audit.store import EntryParty, EntryPlace, EntryQuery
from tests.kit.log_rows import DEPARTMENT, QUIET

_BIG, _SMALL = DEPARTMENT.format(0), DEPARTMENT.format(97)
_OWN = frozenset(f"resource-{number}.v1" for number in range(40, 140))
_NOBODYS = frozenset(f"unknown-{number}.v1" for number in range(100))
_APPROVE, _FETCH = "exchange:grant:approve", "exchange:records:fetch"


def searches(start: int, count: int) -> dict[str, EntryQuery]:
    """Return the searches of a log of *count* entries, a second apart from *start* on."""
    middle = start + count // 2 * 1_000_000
    day = {"since": middle, "until": middle + min(86_400, count // 20) * 1_000_000}
    return {
        "newest": EntryQuery(),
        "newest 1,000": EntryQuery(limit=1_000),
        "a day": EntryQuery(**day),
        "page in the middle": EntryQuery(after=EntryPlace(middle, count // 2)),
        "department": EntryQuery(department=_BIG),
        "small department": EntryQuery(department=_SMALL),
        "unknown department": EntryQuery(department=QUIET),
        "frequent resource": EntryQuery(resource="resource-0.v1"),
        "rare resource": EntryQuery(resource="resource-998.v1"),
        "unknown resource": EntryQuery(resource="unknown.v1"),
        "grant": EntryQuery(grant="grant-0"),
        "case": EntryQuery(case="CASE-7"),
        "unknown case": EntryQuery(case="CASE-none"),
        "entry": EntryQuery(entry="00000000-0000-0000-0000-000000000000"),
        "denials": EntryQuery(decision="deny"),
        "denials of a day": EntryQuery(decision="deny", **day),
        "small department, denials": EntryQuery(department=_SMALL, decision="deny"),
        "frequent resource, denials": EntryQuery(resource="resource-0.v1", decision="deny"),
        "denials for a reason": EntryQuery(reason="quota_exhausted"),
        "denials for a rare reason": EntryQuery(reason="same_person"),
        "denials for a reason that never was": EntryQuery(reason="personal_number"),
        "rare act": EntryQuery(action=_APPROVE),
        "rarer act": EntryQuery(action="exchange:grant:suspend"),
        "act that never happened": EntryQuery(action="exchange:grant:terminate"),
        "act of a later version": EntryQuery(action="exchange:records:someday"),
        "releases": EntryQuery(action=_FETCH),
        "department, rare act": EntryQuery(department=_SMALL, action=_APPROVE),
        "big department, act that never happened": EntryQuery(department=_BIG, action="exchange:grant:terminate"),
        "frequent resource, rare act": EntryQuery(resource="resource-0.v1", action=_APPROVE),
        "purpose": EntryQuery(purpose="purpose-3"),
        "purpose that nobody used": EntryQuery(purpose="purpose-none"),
        "purpose that nobody used, a day": EntryQuery(purpose="purpose-none", **day),
        "department and resource": EntryQuery(department=_BIG, resource="resource-0.v1"),
        "department and rare resource": EntryQuery(department=_SMALL, resource="resource-998.v1"),
        "actor": EntryQuery(actor="user-0-1"),
        "connector of a department": EntryQuery(actor="sink-1", department=_SMALL),
        "actor who never acted": EntryQuery(actor="nobody"),
        "actor's rare act": EntryQuery(actor="user-0-1", action=_APPROVE),
        "party": EntryQuery(party=EntryParty(department=_BIG, resources=_OWN)),
        "party, page in the middle": EntryQuery(
            party=EntryParty(department=_BIG, resources=_OWN), after=EntryPlace(middle, count // 2)
        ),
        "party without entries": EntryQuery(party=EntryParty(department=QUIET, resources=_NOBODYS)),
        "party, denials": EntryQuery(party=EntryParty(department=_SMALL, resources=_OWN), decision="deny"),
        "party, rare act": EntryQuery(party=EntryParty(department=_SMALL, resources=_OWN), action=_APPROVE),
        "party, purpose that nobody used": EntryQuery(
            party=EntryParty(department=_BIG, resources=_OWN), purpose="purpose-none"
        ),
    }
