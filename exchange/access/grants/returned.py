"""Return flow (回流): a lower level gets the rows of its own area out of a higher level's resource. Pure.

A request is one of return flow (decree 809, Art. 24) where its resource is of a department above its own
(`vertical_down`), and its rows are those whose division begins with a code of its own area, and no others. It is asked
for and approved as any request is. The law leaves the provider no conditions beyond those of the published entry: it
refuses such a request on the two grounds alone on which it may refuse one for a resource that is shared without any.

A division field is one that the schema masks as a division (`div_city`), or that is named as one.
"""

from typing import Final

from exchange.access.decision.parties import DepartmentProfile, flow_of
from exchange.access.grants.exposure import SchemaMasks
from schemas.access import AccessMode, Grant, MaskRule, Prefix
from schemas.audit import Flow

__all__ = ["division_fields", "returned_area"]

_NAMED: Final = ("division_code", "division")


def division_fields(masks: SchemaMasks) -> list[str]:
    """Return the fields of a schema that hold the code of a division, in its order."""
    return [name for name, mask in masks.items() if mask.stated == MaskRule.DIV_CITY or name.endswith(_NAMED)]


def returned_area(
    grant: Grant, masks: SchemaMasks, provider: DepartmentProfile | None, consumer: DepartmentProfile | None
) -> str:
    """Return the code of the division whose rows a request of return flow asks for; empty where it is none."""
    chosen = grant.row_filter
    if grant.places or grant.access_mode is not AccessMode.STREAM:
        return ""  # more than the rows themselves is asked for
    if provider is None or consumer is None or not isinstance(chosen, Prefix):
        return ""
    own = bool(consumer.area) and chosen.value.startswith(consumer.area)
    down = flow_of(provider, consumer) is Flow.VERTICAL_DOWN
    return chosen.value if own and down and chosen.field in division_fields(masks) else ""
