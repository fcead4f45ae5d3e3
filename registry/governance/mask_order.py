"""Order of masks: which mask shows nothing that another one hides. Pure.

    drop  ⊒  every mask  ⊒  none            keep_3_4 = phone_3_4
    keep_3_4, phone_3_4 ⊒ keep_3_4_if_person            name_first ⊒ name_first_if_person

*a hides at least what b hides* (a ⊒ b) means: what *a* shows of a value can be computed from what *b* shows of it. The
order is partial. Most pairs show different parts (`name_first` shows the first character of a short text, which
`keep_3_4` hides), and such a mask counts as weaker in both directions: a person decides, not a table. For the same
reason a name that is not in the vocabulary hides nothing as the one that is asked for, and everything as the one that
it is compared with.

What several releases show together stays within a mask as long as each of them does: functions of what a mask shows
are, taken together, a function of it still. `exchange.access.grants.exposure` relies on this for several grants.
"""

from collections.abc import Mapping

__all__ = ["MASKS", "hides_at_least"]

MASKS = (
    "none",
    "keep_3_4",
    "keep_3_4_if_person",
    "name_first",
    "name_first_if_person",
    "phone_3_4",
    "year_only",
    "div_city",
    "addr_district",
    "geo_3",
    "band",
    "predicate",
    "redact_pii",
    "hmac_sm3",
    "drop",
)
"""The vocabulary of masks. A schema may name any of them; a grant only those that the view implements
(`schemas.access.MaskRule`)."""

_HIDES_AT_LEAST: Mapping[str, frozenset[str]] = {
    "none": frozenset(MASKS),
    "keep_3_4": frozenset({"phone_3_4"}),
    "phone_3_4": frozenset({"keep_3_4"}),
    "keep_3_4_if_person": frozenset({"keep_3_4", "phone_3_4"}),
    "name_first_if_person": frozenset({"name_first"}),
}  # mask → masks that show nothing that it hides; `drop` and the mask itself always do


def hides_at_least(mask: str, other: str) -> bool:
    """Return whether *mask* shows nothing that *other* hides; False where that is not certain."""
    if mask not in MASKS:
        return False
    return mask in {other, "drop"} or mask in _HIDES_AT_LEAST.get(other, ())
