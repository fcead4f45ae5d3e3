"""Grants that show unmasked what no request wrote out: told, kept as they are for a time, then suspended."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from exchange.access.decision.grant_rules import Event
from exchange.access.grants.store import GrantQuery
from exchange.authorization.request_context import RequestContext
from exchange.server import composition
from exchange.server.composition import App
from exchange.server.initialise import initialise
from registry.directory.model import CatalogueEntry, GovernmentLevel, ShareType
from schemas.access import Action, Actor, Allow, Grant, GrantState, Level, MaskRule, Role
from schemas.errors import InvalidError, Reason, RefusedError
from tests.kit.cases.accounts import known, put_in_force
from tests.kit.cases.grants import POPULATION, a_draft, a_person
from tests.kit.cases.registry import OTHER_USCC, USCC

pytestmark = pytest.mark.postgres
CALL = RequestContext(trace="0" * 32, client="test")
AUTHORITY = a_person(Role.DATA_AUTHORITY, name="authority")
AUDITOR = a_person(Role.AUDITOR, name="auditor")


class Clock:
    """The database's clock, ahead by *ahead*."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self, reader: object) -> datetime:
        del reader
        return datetime.now(UTC) + self.ahead


def schema(**masks: str) -> str:
    of = {"id_number": "keep_3_4", "full_name": "none", **masks}
    fields = [
        {"name": name, "type": "string", "zh": name, "level": "G2", "personal": "P", "sensitive": "N", "mask": mask}
        for name, mask in of.items()
    ]
    return json.dumps({"type": "record", "name": "Person", "zh": "人", "fields": fields, "key": ["id_number"]})


class Stage:
    def __init__(self, app: App, clock: Clock) -> None:
        self.app, self.clock, self.grants = app, clock, app.pool.grants
        self.grants._sleep = lambda _: None
        provider, consumer = self._department(USCC, "公安"), self._department(OTHER_USCC, "人社")
        self.editor = a_person(Role.CATALOGUE_EDITOR, provider, name="editor")
        self.head = a_person(Role.SHARING_OFFICE_HEAD, provider, name="head")
        self.officer = a_person(Role.SECURITY_OFFICER, provider, name="officer")
        self.asker = a_person(Role.SHARING_OFFICE_HEAD, consumer, name="asker")
        known(app, self.editor, self.head, self.officer, self.asker)
        entry = CatalogueEntry(
            topic=POPULATION, code="101001/000001", title="人口", provider=provider, share_type=ShareType.CONDITIONAL,
            share_scope="市级", use_purpose="社会保险", level=Level.G4,
        )  # fmt: skip
        app.pool.administration.draft_entry(self.editor, CALL, entry)
        self.register(schema())
        put_in_force(app, POPULATION)

    def _department(self, uscc: str, name: str) -> str:
        return self.app.pool.administration.register_department(
            AUTHORITY, CALL, uscc=uscc, name=name, short_name=name, level=GovernmentLevel.CITY, division_code="310100"
        ).id

    def register(self, text: str) -> None:
        self.app.pool.administration.register_schema(self.editor, CALL, POPULATION, text)

    def granted(self, *fields: str, **terms: object) -> Grant:
        now = self.clock(None)
        draft = a_draft(
            fields=fields, masks=(), row_filter=None, not_before=now, expires=now + timedelta(days=300), **terms
        )
        grant = self.grants.submit(self.asker, CALL, draft)
        return self.grants.approve(self.head, CALL, grant.id)

    def of_before(self) -> Grant:
        """Store a grant as the version before this rule approved it: no mask, no name of what it shows."""
        active = self.granted("id_number", "full_name")
        before = replace(active, version=active.version + 1, masks=())
        with self.app.enforcer.act(AUTHORITY, Action.GRANT_APPROVE, "before", CALL, Allow()) as (work, _):
            self.grants._access.put(work, before, entry_id="before", at=self.clock(None))
        return before

    def current(self, grant: Grant) -> Grant:
        with self.app.pool.database.read() as reader:
            return self.grants._access.get(reader, grant.id)

    def listed(self, actor: Actor) -> list[str]:
        return [one.grant.id for one in self.app.pool.grant_reads.reviews(actor, CALL, GrantQuery(), unmasked=True)]

    def actions(self, grant: Grant) -> list[str]:
        with self.app.engines[0].connect() as connection:
            rows = connection.execute(sa.text("SELECT action, leaf FROM audit_entry ORDER BY at")).all()
        return [row.action for row in rows if grant.id.encode() in bytes(row.leaf)]


@pytest.fixture
def stage(tmp_path: Path, database: sa.URL, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    clock = Clock()
    monkeypatch.setattr(composition, "_database_clock", clock)
    monkeypatch.setenv("POOL_DATABASE", database.render_as_string(hide_password=False))
    app = App.open(initialise(tmp_path / "pool", pool_id="city", database="${env:POOL_DATABASE}"))
    yield Stage(app, clock)
    app.close()


def test_a_grant_of_before_is_told_to_both_parties_kept_for_30_days_and_suspended(stage: Stage) -> None:
    fine, before = stage.granted("full_name"), stage.of_before()
    assert stage.listed(stage.asker) == stage.listed(stage.head) == stage.listed(AUDITOR) == [before.id]
    assert stage.grants.review_unmasked() == 1
    told = stage.current(before)
    assert told.suspend_after is not None
    assert timedelta(days=29) < told.suspend_after - stage.clock(None) <= timedelta(days=30)
    same = replace(told, version=before.version, suspend_after=None)
    assert same == before, "its view stays as it was"
    words = stage.app.pool.grant_reads.show(stage.head, CALL, before.id).words
    assert any("in clear" in one and "no request wrote that out" in one for one in words)
    assert any(f"suspended after {told.suspend_after.isoformat()}" in one for one in words)
    assert stage.grants.review_unmasked() == 0, "told once"
    stage.clock.ahead = timedelta(days=29, hours=23)
    assert stage.grants.review_unmasked() == 0
    stage.clock.ahead = timedelta(days=30, minutes=1)
    assert stage.grants.review_unmasked() == 1
    assert stage.current(before).state is GrantState.SUSPENDED
    assert stage.current(fine) == fine
    by_timer = [action for action in stage.actions(before) if action != "exchange:grant:read"]
    assert by_timer[-2:] == ["exchange:grant:remind", "exchange:grant:suspend_unmasked"]
    with pytest.raises(RefusedError) as error:
        stage.grants.change(stage.head, CALL, before.id, Event.RECTIFIED, reason="go on")
    assert error.value.reason is Reason.MASK_WEAKER


def test_written_out_and_approved_anew_a_grant_goes_on(stage: Stage) -> None:
    now = stage.clock(None)
    draft = a_draft(
        fields=("id_number",), masks=(("id_number", MaskRule.NONE),), unmasked_reason="paid by number",
        row_filter=None, not_before=now, expires=now + timedelta(days=300),
    )  # fmt: skip
    grant = stage.grants.submit(stage.asker, CALL, draft)
    stage.grants.countersign(stage.officer, CALL, grant.id)
    stage.grants.approve(stage.head, CALL, grant.id)
    stage.register(schema(id_number="drop"))  # nothing shows more than what both approvers read: in clear
    stage.clock.ahead = timedelta(days=60)
    assert stage.grants.review_unmasked() == 0
    assert stage.listed(stage.asker) == []


def test_a_schema_that_masks_more_later_changes_no_view_but_its_grants_are_told_and_suspended(stage: Stage) -> None:
    grant = stage.granted("id_number", "full_name")
    asked = stage.grants.submit(stage.asker, CALL, replace(grant, state=GrantState.DRAFT, masks=()))
    assert stage.grants.review_unmasked() == 0
    stage.register(schema(full_name="name_first"))
    assert stage.listed(stage.head) == [grant.id, asked.id]
    assert stage.grants.review_unmasked() == 1
    assert stage.current(grant).masks == grant.masks
    with pytest.raises(RefusedError) as error:
        stage.grants.approve(stage.head, CALL, asked.id)
    assert error.value.reason is Reason.MASK_WEAKER, "it was asked for under the schema before"
    stage.clock.ahead = timedelta(days=31)
    assert stage.grants.review_unmasked() == 1
    assert stage.current(grant).state is GrantState.SUSPENDED


def test_deleting_a_version_with_a_stricter_mask_gives_nobody_a_weaker_one(stage: Stage) -> None:
    stage.register(schema(full_name="name_first"))
    with stage.app.enforcer.act(stage.editor, Action.SCHEMA_DELETE, "v2", CALL, Allow()) as (work, _):
        stage.app.subjects.deletion.delete_version(work, POPULATION.subject, 2)
    granted = stage.granted("full_name", "id_number")
    assert dict(granted.masks)["full_name"] is MaskRule.NAME_FIRST


def test_an_approval_of_what_the_schema_only_drops_is_refused_at_the_request(stage: Stage) -> None:
    stage.register(schema(full_name="drop"))
    with pytest.raises(InvalidError) as error:
        stage.granted("full_name")
    assert error.value.reason is Reason.REQUEST_INVALID
