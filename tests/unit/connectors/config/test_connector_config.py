"""A configuration file: strict, with line and column, and without a single secret in it."""

import re
from pathlib import Path

import pytest

from connectors.config.config import SECTIONS, ConnectorConfig
from connectors.config.lint import Finding, load_config, parse_config
from connectors.config.secret_references import SecretReference
from connectors.config.source_models import FilesSource, PoolSourceConfig, SqlSourceConfig
from connectors.config.subscription_models import SqlTarget
from schemas.errors import InvalidError, Reason

WHOLE = """\
version: 1
connector: civil-affairs-drop
exchange: { gateway: "exchange.example:9443", identity: identity/ }
state: ../state
source:
  kind: files
  path: drop/
  pattern: ["低保对象_*.csv", "*.txt"]
  ready_when: marker .ok
  after_success: move to done/
  poll: 1m
publish:
  - resource: low-income-household.v1
    replaces: same_name
    format:
      encoding: auto
      header_row: 2
      stop_at: { column: 序号, equals: 合计 }
      null_values: ["", "-", 无]
    columns:
      身份证号: { as: id_no, type: string, check: cn_id18 }
      发放月份: { as: period, formats: ["%Y-%m", "%Y年%m月"] }
      金额: { as: amount, type: "decimal(12,2)", strip: [",", 元] }
      备注: { exclude: true }
    unknown_columns: stop
    on_duplicate: last
    deletes: { stop_if_more_than: 2% }
    quarantine: { stop_if_more_than: 1%, keep: 90d }
subscribe:
  - grant: 0198c1de-0000-7000-8000-000000000001
    purpose: eligibility
    case: STANDING-1
    into: { kind: sql, url: "postgresql+psycopg2://writer@db/ext", password: "${env:DB}", table: ext.household }
  - grant: g-2
    purpose: eligibility
    into: { kind: csv, path: out/, encoding: utf-8-sig, neutralise_formulas: true }
batch: { rows: 2000, in_flight: 2 }
retry: { give_up_after: 30m }
"""


def findings(text: str) -> list[Finding]:
    found = parse_config(text)
    assert isinstance(found, list), "it was accepted"
    return found


def test_a_whole_configuration_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c").mkdir()
    path = tmp_path / "c" / "connector.yaml"
    path.write_text(WHOLE)
    config = load_config(path)
    assert isinstance(config.source, FilesSource)
    assert config.source.path == tmp_path / "c" / "drop"
    assert config.source.poll == 60.0
    assert config.source.readiness() == (".ok", 0.0)
    assert config.publish[0].deletes.stop_if_more_than == 0.02
    assert config.publish[0].columns["金额"].target == "amount"
    into = config.subscribe[0].into
    assert isinstance(into, SqlTarget)
    assert "hunter2" not in repr(config)
    monkeypatch.setenv("DB", "hunter2")
    assert into.address().password == "hunter2"
    assert "hunter2" not in repr(into.address())


@pytest.mark.parametrize(
    ("old", "new", "at", "message"),
    [
        (
            "on_duplicate: last",
            "on_duplicates: last",
            "on_duplicates",
            'key "on_duplicates" - did you mean "on_duplicate"',
        ),
        ("check: cn_id18", "chek: cn_id18", "chek", 'unknown key "chek" - did you mean "check"?'),
        ("as: id_no", "target_field: id_no", "target_field", 'unknown key "target_field"'),
        ("pattern: [", "patern: [", "patern", 'unknown key "patern" - did you mean "pattern"?'),
        ("version: 1", "version: 2", "version", "version"),
        ("${env:DB}", "hunter2", "password", "a password must be a reference such as ${env:NAME}"),
        ("writer@db", "writer:hunter2@db", "url", "the address holds a password"),
        ("marker .ok", "sometimes", "source", "ready_when: expected `marker .ok`"),
        ("v1\n", "\n", "resource", "expected <resource>.v<major>"),
        ("kind: csv", "kind: cvs", "into: { kind: cvs", "csv"),
        (
            "    purpose: eligibility\n    into: { kind: csv",
            "    into: { kind: csv",
            "grant: g-2",
            '"purpose" is missing',
        ),
        ("rows: 2000", "rows: 20000", "rows", "10000"),
        ("than: 2%", "than: 200%", "stop_if_more_than: 200%", "expected a share"),
        ("encoding: auto", "encoding: gb_18031", "encoding: gb_18031", "expected `auto`, or an encoding"),
        ("encoding: auto", "delimiter: ';;'", "delimiter", "expected one character"),
        ("after_success: move to done/", "after_reject: delete", "source", "after_reject: expected `keep`"),
        ("poll: 1m", "poll: soon", "poll", "expected a duration"),
        ("connector: civil-affairs-drop", "connector: Civil Affairs", "connector", "lower-case"),
        ("state: ../state", "state: ../state\nstate: x", "state: x", "duplicate"),
        ("batch: { rows: 2000, in_flight: 2 }", "batch: [ rows", ": { give", "expected"),
    ],
)
def test_an_error_names_line_column_and_what_was_meant(old: str, new: str, at: str, message: str) -> None:
    assert old in WHOLE
    text = WHOLE.replace(old, new, 1)
    found = findings(text)
    fitting = [each for each in found if message in each.message]
    assert fitting, found
    before = text[: text.index(at)]
    place = (before.count("\n") + 1, len(before) - before.rfind("\n"))
    assert place == (fitting[0].line, fitting[0].column)
    told = "\n".join(each.render("c.yaml") for each in found)
    assert "hunter2" not in told, "a finding never shows a secret"
    assert re.match(r"c\.yaml:[0-9]+:[0-9]+  error  ", told)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected keys"),
        ("", "expected keys"),
        ("version: 1\nconnector: c\nexchange: {identity: i}\n", "nothing to do"),
        ("version: 1\nconnector: c\nexchange: {identity: i}\npublish: [{resource: r.v1}]\n", "needs a `source:`"),
        ("version: 1\n\tconnector: c\n", ""),
        ("&a [*a]", "expected keys"),
    ],
)
def test_what_is_no_configuration_is_an_error_and_not_a_traceback(text: str, message: str) -> None:
    assert any(message in each.message for each in findings(text))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{resource: r.v1}", "r.v1 needs one of `table:` and `query:`"),
        ("{resource: r.v1, table: t, query: SELECT 1, key: [a]}", "r.v1 needs one of `table:` and `query:`"),
        ("{resource: r.v1, query: SELECT 1}", "`query:` of r.v1 needs `key:`"),
        ("{resource: r.v1, table: t, key: [a], page_by: [a]}", "has `key:` and `page_by:`"),
    ],
)
def test_a_publication_of_a_database_names_what_is_read_and_its_key(section: str, message: str) -> None:
    head = "version: 1\nconnector: c\nexchange: {identity: i}\nsource: {kind: sql, url: 'sqlite:///x.db'}\npublish: "
    assert message in findings(f"{head}[{section}]\n")[0].message
    for fitting in ("{resource: r.v1, table: t, where: a > 1}", "{resource: r.v1, query: SELECT 1 AS a, key: a}"):
        assert isinstance(parse_config(f"{head}[{fitting}]\n"), ConnectorConfig)


def test_a_resource_that_is_named_twice_is_refused() -> None:
    text = (
        "version: 1\nconnector: c\nexchange: {identity: i}\nsource: {kind: files, path: p}\n"
        "publish: [{resource: r.v1}, {resource: r.v1}]\n"
    )
    assert "is named twice" in findings(text)[0].message


def test_references_are_resolved_late_and_named_when_they_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH", raising=False)
    with pytest.raises(InvalidError) as error:
        SecretReference("${env:NO_SUCH}").resolve()
    assert error.value.reason is Reason.CONFIG_INVALID
    assert "NO_SUCH" in error.value.message
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    assert SecretReference(f"${{file:{secret}}}").resolve() == "hunter2"
    assert "hunter2" not in repr(SecretReference("hunter2"))
    with pytest.raises(InvalidError):
        SecretReference(f"${{file:{tmp_path / 'none'}}}").resolve()


def test_every_section_is_known_to_the_guesser() -> None:
    models = set(SECTIONS.values())
    used = {ConnectorConfig}
    open_ = [ConnectorConfig]
    while open_:
        for field in open_.pop().model_fields.values():
            for each in re.findall(r"connectors\.config\.\w+\.(\w+)", repr(field.annotation)):
                model = next((known for known in models if known.__name__ == each), None)
                assert model is not None, f"{each} has no entry in SECTIONS"
                if model not in used:
                    used.add(model)
                    open_.append(model)
    assert used == models


CURSOR = """\
version: 1
connector: cards
exchange: { identity: identity/ }
source: { kind: sql, url: postgresql://reader@db/cards, poll: 30s }
publish:
  - resource: senior-card.v1
    table: senior_card
    mode: incremental
    cursor: updated_at
    cursor_set_by: application
    overlap: 2h
    deletes: { detect: true, schedule: { daily_at: "02:00", timezone: Asia/Shanghai } }
"""


def test_a_configuration_by_a_cursor_is_read() -> None:
    config = parse_config(CURSOR)
    assert isinstance(config, ConnectorConfig)
    (section,) = config.publish
    assert (section.cursor, section.overlap) == ("updated_at", 7200)
    assert section.deletes.schedule is not None
    assert section.deletes.schedule.schedule().cron == "0 2 * * *"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    cursor: updated_at\n", "", "needs a source of `kind: sql`, and `cursor:`"),
        ("mode: incremental", "mode: snapshot", "`cursor:` is for `mode: incremental`"),
        ("detect: true", "detect: false", "would leave them unpublished"),
        ("daily_at", "daily", 'did you mean "daily_at"?'),
        ("overlap: 2h", "overlap: 2h\n    cursor_timezone: CST", "no time zone of the IANA database"),
        ("cursor_set_by", "cursor_setby", 'did you mean "cursor_set_by"?'),
    ],
)
def test_what_a_cursor_needs_is_said(old: str, new: str, message: str) -> None:
    found = parse_config(CURSOR.replace(old, new))
    assert isinstance(found, list)
    assert any(message in each.message for each in found), found


CHANGES = """\
version: 1
connector: cards
exchange: { identity: identity/ }
source:
  kind: sql
  url: postgresql://reader@db/cards
  cdc: { slot: exchange_cards, heartbeat: 30s, wal_limit: { warn: 500MiB, drop_slot: 40GiB } }
publish:
  - resource: senior-card.v1
    table: senior_card
    mode: cdc
    on_delete: end
"""


def test_a_configuration_of_changes_is_read() -> None:
    config = parse_config(CHANGES)
    assert isinstance(config, ConnectorConfig)
    assert isinstance(config.source, SqlSourceConfig)
    assert config.source.cdc is not None
    assert config.source.cdc.wal_limit.warn == 500 << 20
    assert (config.publish[0].mode, config.publish[0].on_delete) == ("cdc", "end")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("slot: exchange_cards", "slot: Exchange-Cards", "a-z, 0-9 and _"),
        ("slot: exchange_cards", "slots: exchange_cards", 'did you mean "slot"?'),
        ("warn: 500MiB", "warn: much", "expected a size"),
        ("warn: 500MiB", "wran: 500MiB", 'did you mean "warn"?'),
        ("postgresql://", "mysql://", "the log of PostgreSQL"),
        ("table: senior_card", "table: senior_card\n    page_by: no", "for `mode: snapshot`"),
        (
            "  cdc: { slot: exchange_cards, heartbeat: 30s, wal_limit: { warn: 500MiB, drop_slot: 40GiB } }\n",
            "",
            "`cdc: { slot: NAME }`",
        ),
    ],
)
def test_what_is_wrong_with_a_configuration_of_changes_is_said(old: str, new: str, message: str) -> None:
    assert old in CHANGES
    assert any(message in each.message for each in findings(CHANGES.replace(old, new)))


POOL = """\
version: 1
connector: bridge
exchange: { identity: identity/ }
source: { kind: pool, identity: identity-province/ }
publish:
  - resource: population.v1
    draw: { grant: 0198C0DE-0000-7000-8000-0000000000A1, purpose: eligibility }
"""


def test_a_configuration_of_another_pool_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bridge.yaml"
    path.write_text(POOL)
    config = load_config(path)
    assert isinstance(config.source, PoolSourceConfig)
    assert config.source.identity == tmp_path / "identity-province"
    draw = config.publish[0].draw
    assert draw is not None
    assert (draw.grant, draw.case) == ("0198c0de-0000-7000-8000-0000000000a1", "")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    draw:", "    # draw:", "`draw:` and a source of `kind: pool` need each other"),
        ("kind: pool, identity: identity-province/", "kind: files, path: drop/", "need each other"),
        ("    draw:", "    schedule: { every: 1h }\n    draw:", "is followed all the time"),
        ("    draw:", "    mode: incremental\n    cursor: at\n    draw:", "is followed all the time"),
        ("0198C0DE-0000-7000-8000-0000000000A1", "g-1", "expected the id of a grant"),
        (
            "  - resource: population.v1",
            (
                "  - resource: other.v1\n    draw: { grant: 0198c0de-0000-7000-8000-0000000000a1, purpose: x }\n"
                "  - resource: population.v1"
            ),
            "a grant of the other pool is named twice",
        ),
    ],
)
def test_what_is_wrong_with_a_configuration_of_another_pool_is_said(old: str, new: str, message: str) -> None:
    assert message in findings(POOL.replace(old, new))[0].message
