"""Parties of a delivery: their zones, and the flow that a delivery between them is. Pure.

**Zones.** A department and a resource each have one network zone: `inner` (政务内网), `outer` (政务外网), `internet`
(互联网), or `default`, the one zone of a pool that tells none apart. Records are delivered where the department's zone
is the resource's. Into another zone they are delivered under a grant alone that names both: the zone that they leave
(`source_zone`) and the one that they enter (`zone`). Each is compared as it is now, so that moving the department or
the resource ends the crossing.

**Flow** (数据流). The label of a delivery follows from its parties alone:

    public          one of them is outside the government
    vertical_down   the provider is of a higher level, and its area contains the consumer's
    vertical_up     the consumer is of a higher level, and its area contains the provider's
    horizontal      every other: the same level, or areas of which none contains the other

**Contractors** (受托方). They never get a personal field in plaintext (decree 809, Art. 36): neither shown unmasked,
nor told by the row filter, nor with a weaker mask than the schema's.
"""

from collections.abc import Collection
from dataclasses import dataclass

from schemas.access import Deny, Grant
from schemas.audit import Flow
from schemas.errors import Reason

__all__ = ["DepartmentProfile", "flow_of", "refuse_crossing", "refuse_plaintext"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DepartmentProfile:
    """What decisions and labels need of a department.

    Attributes:
        id: internal.
        zone: network zone.
        rank: of its level of government, 0 = national, the highest.
        division_code: administrative division (GB/T 2260).
        area: prefix of the codes of all divisions in its area; empty = the whole country.
        public: it is outside the government.
        contractor: it works for another department under a contract.
        asks: it may ask for grants.
    """

    id: str
    zone: str = "default"
    rank: int = 0
    division_code: str = ""
    area: str = ""
    public: bool = False
    contractor: bool = False
    asks: bool = True


def flow_of(provider: DepartmentProfile, consumer: DepartmentProfile) -> Flow:
    """Return the flow of a delivery from a provider to a consumer."""
    if provider.public or consumer.public:
        return Flow.PUBLIC
    if provider.rank < consumer.rank and consumer.division_code.startswith(provider.area):
        return Flow.VERTICAL_DOWN
    if consumer.rank < provider.rank and provider.division_code.startswith(consumer.area):
        return Flow.VERTICAL_UP
    return Flow.HORIZONTAL


def refuse_crossing(grant: Grant, *, consumer_zone: str, resource_zone: str) -> Deny | None:
    """Return the denial of a delivery across zones that the grant does not name, None where there is none.

    Args:
        grant: under which it is.
        consumer_zone: of the consumer now; empty = unknown.
        resource_zone: of the resource now.
    """
    if grant.source_zone:
        if (resource_zone, consumer_zone) == (grant.source_zone, grant.zone):
            return None
        return Deny(
            Reason.ZONE_MISMATCH,
            f"the grant delivers from the zone {grant.source_zone!r} to {grant.zone!r}; the resource is in "
            f"{resource_zone!r}, the department in {consumer_zone!r}; ask for a new grant",
        )
    if consumer_zone == resource_zone:
        return None
    return Deny(
        Reason.ZONE_MISMATCH,
        f"the resource is in the zone {resource_zone!r}, the department in {consumer_zone!r}; a grant whose request "
        f"states `source_zone: {resource_zone}` and a `zone_reason` delivers across zones",
    )


def refuse_plaintext(fields: Collection[str] | None) -> Deny | None:
    """Return the denial of a contractor's grant by the personal fields that it shows or tells; None = unknown."""
    if fields is not None and not fields:
        return None
    named = "cannot be told from the others" if fields is None else f"are shown or told: {', '.join(sorted(fields))}"
    return Deny(
        Reason.CONTRACTOR_PLAINTEXT,
        f"a contractor gets no personal field in plaintext; those of this grant {named}; mask or drop them, and choose "
        "no rows by them, in a new request",
    )
