"""Exposure of a grant: what it shows beyond the schema's masks, by its fields and by its row filter. Pure.

The schema's mask of a field is how the field is shown where a grant writes no other. Two things show more:

    unmasked    a granted field whose mask does not hide at least what the schema's hides
                (`registry.governance.mask_order`)
    disclosed   a field of the row filter that is masked in the view, or absent from it while the schema masks it: that
                a row is delivered tells its value, which is a disclosure; by `eq`, `in`, `prefix`, `range`, `exists`
                and all of them under `not` alike

Each must be written out in the request, with a reason. What is written out is in the grant (`unmasked`,
`filter_discloses`); what is not is *undecided*: a request with it is refused, and a grant with it, approved before this
rule or before the schema's mask became stricter, is listed, told to both parties, and suspended after a time.

A field that the schema does not have counts as dropped by it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from exchange.access.view.filter import fields_of
from registry.governance.mask_order import hides_at_least
from schemas.access import Grant, MaskRule

__all__ = ["Exposure", "FieldMask", "SchemaMasks", "exposure_of", "undecided_exposure", "with_default_masks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldMask:
    """How the schema masks a field.

    Attributes:
        stated: the mask that the schema states, of the schema's vocabulary; `drop` for a record with a masked field.
        default: the rule that a view applies where a request writes none: the stated one, or `drop` where the view
            does not have it or it does not fit the field's type.
        zh: the field's Chinese label.
    """

    stated: str
    default: MaskRule
    zh: str = ""


SchemaMasks = Mapping[str, FieldMask]
"""Top-level field → how the resource's current schema masks it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """What a grant shows beyond the schema's masks; field names, each once.

    Attributes:
        unmasked: in the grant's order.
        disclosed: sorted.
    """

    unmasked: tuple[str, ...] = ()
    disclosed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.unmasked or self.disclosed)


def with_default_masks(draft: Grant, masks: SchemaMasks) -> Grant:
    """Return the draft with the schema's mask for each field that it writes none for."""
    written = {field for field, _ in draft.masks}
    defaults = tuple(
        (field, masks[field].default)
        for field in dict.fromkeys(draft.fields)
        if field not in written and field in masks and masks[field].default is not MaskRule.NONE
    )
    return replace(draft, masks=(*draft.masks, *defaults))


def exposure_of(grant: Grant, masks: SchemaMasks) -> Exposure:
    """Return what a grant shows beyond the masks of its resource's current schema, written out or not."""
    shown = _shown(grant)
    unmasked = [field for field, rule in shown.items() if not hides_at_least(rule, _stated(masks, field))]
    disclosed = [
        field for field in fields_of(grant.row_filter) if shown.get(field, _stated(masks, field)) != MaskRule.NONE
    ]
    return Exposure(unmasked=tuple(unmasked), disclosed=tuple(sorted(disclosed)))


def undecided_exposure(grant: Grant, masks: SchemaMasks) -> Exposure:
    """Return what a grant shows beyond the schema's masks without that its request wrote it out."""
    found = exposure_of(grant, masks)
    return Exposure(
        unmasked=_without(found.unmasked, grant.unmasked), disclosed=_without(found.disclosed, grant.filter_discloses)
    )


def _shown(grant: Grant) -> dict[str, str]:
    written = dict(grant.masks)
    return {field: str(written.get(field, MaskRule.NONE)) for field in grant.fields}


def _stated(masks: SchemaMasks, field: str) -> str:
    return masks[field].stated if field in masks else "drop"


def _without(names: Sequence[str], decided: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in decided)
