"""Grants, actors and resources for tests: a fitting one of each, to be bent with keywords."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from exchange.access.decision.policy import GrantContext, Resource, decide
from exchange.access.grants.exposure import FieldMask, SchemaMasks, exposure_of
from exchange.access.grants.holding import Holding, Part
from exchange.access.view.mask import default_mask
from schemas.access import (
    Actor,
    ActorKind,
    Allow,
    CaseRule,
    Compare,
    Deny,
    Grant,
    GrantState,
    History,
    Level,
    MaskRule,
    Role,
)
from schemas.names import ResourceName, Topic

NOW = datetime(2026, 5, 4, 9, 30, tzinfo=UTC)
POPULATION = Topic(ResourceName("population"), 1)
PROVIDER = "0198c0de-0000-7000-8000-000000000001"
CONSUMER = "0198c0de-0000-7000-8000-000000000002"
STRANGER = "0198c0de-0000-7000-8000-000000000003"
GRANT = "0198c0de-0000-7000-9000-000000000001"

_GRANT = Grant(
    id=GRANT,
    version=1,
    pool_id="test-pool",
    consumer=CONSUMER,
    provider=PROVIDER,
    topic=POPULATION,
    fields=("id_number", "full_name", "birth_date"),
    masks=(("id_number", MaskRule.KEEP_3_4),),
    row_filter=Compare("eq", "residence_division_code", "310104"),
    purpose="eligibility",
    legal_basis="社会保险法 第七十四条",
    case_rule=CaseRule.STANDING,
    case="HR-2026-0007",
    not_before=NOW - timedelta(days=30),
    expires=NOW + timedelta(days=300),
    history=History.SINCE_APPROVAL,
    quota_per_day=1_000,
    ceiling=Level.G4,
    requested_by="wang.hr",
    approved_by="li.ps",
    approved_at=NOW - timedelta(days=29),
    view_schema_id=17,
    state=GrantState.ACTIVE,
)


PERSONS = {name: f"staff-{name}" for name in ("wang.hr", "li.ps", "zhang", "zhao.hr", "sun.ps", "chen.da", "timer")}
"""Account name → staff number: each account is another person's."""


def a_grant(**changes: Any) -> Grant:
    return replace(_GRANT, **changes)


def a_draft(**changes: Any) -> Grant:
    return replace(
        _GRANT,
        **{
            "state": GrantState.DRAFT,
            "approved_by": None,
            "approved_at": None,
            "view_schema_id": None,
            "not_before": NOW,
            **changes,
        },
    )


def a_connector(department: str = CONSUMER, **changes: Any) -> Actor:
    return replace(
        Actor(kind=ActorKind.MACHINE, id="benefits", department=department, role=Role.CONNECTOR, certificate="c0ffee"),
        **changes,
    )


def a_person(role: Role, department: str = "", name: str = "zhang", **changes: Any) -> Actor:
    return replace(Actor(kind=ActorKind.HUMAN, id=name, department=department, role=role), **changes)


def a_resource(**changes: Any) -> Resource:
    return replace(Resource(topic=POPULATION, provider=PROVIDER, published=True), **changes)


def masks_of(kind: str = "string", **stated: str) -> SchemaMasks:
    """Return a schema's masks: field → stated one; the fitting grant's other fields are shown as they are."""
    plain = dict.fromkeys((*_GRANT.fields, "residence_division_code", "ethnicity_code"), "none")
    return {
        field: FieldMask(stated=mask, default=default_mask(mask, kind), zh=field)
        for field, mask in {**plain, **stated}.items()
    }


PLAIN = masks_of()


def held(grant: Grant, *others: Grant, masks: SchemaMasks = PLAIN, level: Level | None = Level.G1) -> Holding:
    """Return a holding of grants on the resource, each of the level."""

    def part(one: Grant) -> Part:
        return Part(grant=one, level=level, exposure=exposure_of(one, masks))

    topics = {one.topic for one in (grant, *others)}
    return Holding(part=part(grant), others=tuple(map(part, others)), masks=dict.fromkeys(topics, masks))


def decided(**request: Any) -> Allow | Deny:
    """Return what `decide` says of a request whose attributes lie side by side, so that a test bends one of them."""
    context = {name: request.pop(name, None) for name in ("grant", "proven", "level", "released_today", "now")}
    if context["grant"] is not None:
        plaintext = request.pop("plaintext", ())
        request["grant"] = GrantContext(resource=request.get("resource"), plaintext=plaintext, **context)
    request.pop("plaintext", None)
    return decide(**request)
