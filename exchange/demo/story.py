"""Demonstration (`pool demo`): publish, request, approve, fetch, follow changes, correct, verify and erase.

    公安局 Public Security   a population table in its own PostgreSQL server, whose changes a connector publishes (cdc)
    民政局 Civil Affairs     a CSV drop in GB18030, published by a connector
    人社局 Human Resources   asks for 4 of 20 fields of one district's residents, is refused, is granted, fetches

It shows what guards a person's data: the schema's masks where a request writes none, a filter that would tell a masked
field, a second person for what a filter tells, and that the owner is told of refusals. How requests are decided on by
law is `exchange.demo.requests`.

Every program runs as its users run it: `pool serve`, `pool-connect enrol`, `pool-connect run`. At the end the delivered
rows are compared with the generated ones; a difference ends the demonstration with exit code 1.
"""

import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from exchange.admin_client import AdminClient
from exchange.audit.note import NoteKey
from exchange.audit.proof import check_proof
from exchange.audit.verify import verify_files
from exchange.client import Identity, PoolClient
from exchange.demo.authorities import AUTHORITY_TOKEN, Authorities
from exchange.demo.corrections import correct_a_value
from exchange.demo.departments import CivilAffairs, HumanResources, PublicSecurity
from exchange.demo.programs import Programs
from exchange.demo.requests import tell_requests
from exchange.demo.screen import Screen
from exchange.server.initialise import initialise
from schemas.errors import InvalidError, RefusedError, UnavailableError

__all__ = ["run_demo"]

_ORGANISATIONS = 2_000
_SIGNED_WITHIN = 15.0  # seconds until the log has signed the last entry
_ERASED_WITHIN = 60.0  # seconds from the proposal on


@dataclass
class _Stage:
    """State that the steps share."""

    folder: Path
    screen: Screen
    programs: Programs
    ending: ExitStack  # stops what was started
    root: AdminClient | None = None  # as a data authority

    @property
    def data(self) -> Path:
        return self.folder / "pool"


def run_demo(*, keep: bool, persons: int) -> int:
    """Run the demonstration, and return the exit code: 0 if exactly the granted rows and fields were delivered."""
    folder = Path(tempfile.mkdtemp(prefix="pool-demo-"))
    folder.chmod(0o755)  # the embedded PostgreSQL runs as another user, where this one is root
    screen = Screen()
    programs = Programs(folder)
    # As ctrl-c: no server is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with ExitStack() as ending:
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        ending.callback(programs.stop)
        passed = _run_steps(_Stage(folder, screen, programs, ending), persons)
        if keep:
            screen.line(f"everything still runs; end it with ctrl-c. Its folder is {folder}")
            programs.wait()
    return 0 if passed else 1


def _run_steps(stage: _Stage, persons: int) -> bool:
    screen = stage.screen
    screen.heading("1", "A pool on the embedded PostgreSQL", "数据交换池")
    initialise(
        stage.data, pool_id="demo", listen=dict.fromkeys(("grpc", "enrolment", "http", "registry"), "127.0.0.1:0")
    )
    addresses = stage.programs.serve(stage.data)
    authorities = Authorities.set_up(stage.data, addresses)
    stage.root = root = authorities.first
    screen.line(
        f"gateway {addresses['gateway']} (mutual TLS), control API {addresses['http']}, log {stage.data / 'log'}"
    )

    screen.heading("2", "Three departments join", "部门入池")
    police, civil, labour = (
        PublicSecurity(authorities, persons),
        CivilAffairs(authorities, _ORGANISATIONS),
        HumanResources(authorities),
    )
    stage.ending.callback(police.stop)
    for department in (police, civil, labour):
        department.join(stage.data, stage.folder, stage.programs)
        screen.line(f"{department.name}: registered, accounts made, connector {department.connector!r} enrolled")

    screen.heading("3", "Two departments publish", "归集发布")
    statements = police.prepare_database(stage.programs)
    screen.line(
        f"{police.name}: the owner of its PostgreSQL pastes {len(statements)} statements of `pool-connect setup`"
    )
    for source in (police, civil):
        seconds = stage.programs.connect("run", str(source.config), "--once").seconds
        rate = source.count / seconds
        screen.line(f"{source.name}: {source.count:,} records of {source.topic} in {seconds:.1f} s ({rate:,.0f}/s)")
    screen.line("  read, mapped, checked against the schema, signed, keyed with pseudonyms, stored, entered in the log")

    screen.heading("4", "Human Resources asks", "共享申请")
    married: dict[str, object] = {"op": "eq", "field": "marital_status_code", "value": "20"}
    screen.refused("a filter on a field that nobody may see", _disclosing(labour, police.topic, married))
    grant_id = labour.submit_request(police.topic)
    screen.line(f"request {grant_id[-12:]}: {', '.join(labour.fields)} where household division = {labour.district}")
    screen.line("no mask is asked for, so the schema's own hold; the filter is named as a disclosure:")
    for sentence in police.told(grant_id):
        screen.line(f"  {sentence}")
    with PoolClient(Identity.load(labour.identity)) as pool:
        refused = _refusal(pool, grant_id, labour)
        screen.refused("before the owner has approved", refused)
        screen.line(f"{police.name}: its head signs, and the request is {police.approve(grant_id)}")
        screen.refused("with one signature of two", _refusal(pool, grant_id, labour))
        screen.line(f"{police.name}: its security officer signs too, and the request is {police.countersign(grant_id)}")
        screen.line(f"{police.name}: its head provides; {police.approve(grant_id)}, and 16 of 20 fields stay behind")

        screen.heading("5", "Human Resources draws", "按需共享")
        started = time.monotonic()
        labour.fetch_all(stage.folder, stage.programs, grant_id)
        delivered = labour.delivered()
        screen.line(f"{len(delivered):,} of {persons:,} records arrived in {time.monotonic() - started:.1f} s:")
        screen.rows(labour.fields, list(delivered.values())[:4])
        screen.refused("for another purpose", _refusal(pool, grant_id, labour, purpose="research"))
        screen.refused("for another case", _refusal(pool, grant_id, labour, case="UNKNOWN-7"))

    followed = _follow(stage, police, labour, grant_id)
    corrected = correct_a_value(screen, stage.programs, stage.folder, police, labour, grant_id)

    traced = _trace(stage, root, police, labour, grant_id)
    erased = _erase(stage, root, police)
    removed = _remove_connector(stage, police)
    decided = tell_requests(stage.data, screen, labour, police, civil)
    _propose(stage, labour, grant_id)
    return followed and corrected and traced and erased and removed and decided


def _trace(stage: _Stage, root: AdminClient, police: PublicSecurity, labour: HumanResources, grant_id: str) -> bool:
    """Show the grant's entries, verify the log, and compare the consumer's table with the source."""
    screen = stage.screen
    screen.heading("8", "The trace", "审计留痕")
    entries = root.get("/audit/entries", {"grant": grant_id, "limit": 1000})
    proven = _prove(stage, entries)
    differences = labour.compare(police.granted(labour.fields, labour.district))
    for difference in differences:
        screen.failed(difference)
    if not differences:
        screen.passed(
            f"compared with what was generated and changed: {len(labour.delivered()):,} rows, 4 fields, each masked as "
            "the schema says; nothing else arrived"
        )
    told = _told(screen, police)
    screen.line(f"{len(entries)} entries tell of the grant")
    return proven and told and not differences


def _propose(stage: _Stage, labour: HumanResources, grant_id: str) -> None:
    """Print commands to try."""
    account = f"--data {stage.data} --token-file {stage.data / AUTHORITY_TOKEN}"
    stage.screen.line("try it yourself with --keep:")
    stage.screen.commands(
        f"pool audit list {account} --grant {grant_id}",
        f"pool audit verify --files {stage.data / 'log'} --key {stage.data / 'log.pub'}",
        f"pool grant {account} suspend {grant_id} --reason '…'",
        f"pool-connect status {labour.config}",
    )


def _follow(stage: _Stage, police: PublicSecurity, labour: HumanResources, grant_id: str) -> bool:
    """Change three rows at the source, publish and fetch, and compare what changed at the consumer."""
    screen = stage.screen
    screen.heading("6", "The source changes", "变更捕获")
    before = labour.delivered()
    changes = police.change(labour.fields, labour.district)
    screen.line(f"{police.name}: a row inserted, one updated, one deleted in its database, in one transaction")
    run = stage.programs.connect("run", str(police.config), "--once")
    screen.line(f"its connector reads the log of changes: {run.notices.splitlines()[-1]}")
    labour.fetch_all(stage.folder, stage.programs, grant_id)
    after = labour.delivered()
    arrived = [(before.get(key), after.get(key)) for key in {**before, **after} if before.get(key) != after.get(key)]
    screen.line(f"{labour.name} draws again; what has changed in its table:")
    for was, is_ in arrived:
        what = "updated" if was and is_ else "inserted" if is_ else "deleted"
        screen.line(f"  {what:<9} {_row(was, is_)}")
    if sorted(arrived, key=repr) != sorted(((each.before, each.after) for each in changes), key=repr):
        screen.failed("the consumer's table did not change as the source did")
        return False
    screen.passed("insert, update and delete arrived as they were committed, and nothing else changed")
    return True


def _row(was: tuple[str, ...] | None, is_: tuple[str, ...] | None) -> str:
    """Return a row in words, with both values of what has changed in it."""
    if was is None or is_ is None:
        return "  ".join(was or is_ or ())
    return "  ".join(old if old == new else f"{old} → {new}" for old, new in zip(was, is_, strict=True))


def _remove_connector(stage: _Stage, police: PublicSecurity) -> bool:
    """Take the connector of the log of changes down, and see that its database keeps no log for it."""
    screen = stage.screen
    screen.heading("10", "The connector is removed", "停用")
    for line in stage.programs.connect("teardown", str(police.config)).output.splitlines():
        screen.line(line)
    if slots := police.database.slots():
        screen.failed(f"slots are left in its database: {', '.join(slots)}")
        return False
    screen.passed(f"{police.name}: no replication slot is left in its database")
    return True


def _erase(stage: _Stage, root: AdminClient, police: PublicSecurity) -> bool:
    """Erase one person by the decision of two, and wait until the values are destroyed."""
    screen = stage.screen
    screen.heading("9", "A person is erased", "个人信息删除")
    started = time.monotonic()
    body = {"topic": police.topic, "key": [police.one_number()], "reason": "个人信息主体撤回同意"}
    erasure = police.head.post("/erasures", body)["id"]
    screen.line(f"{police.name} proposes; the key is kept as its pseudonym alone")
    root.post(f"/erasures/{erasure}/confirmation")
    screen.line("another person confirms; from now on nothing of this person is released")
    while time.monotonic() - started < _ERASED_WITHIN:
        (found,) = (one for one in root.get("/erasures") if one["id"] == erasure)
        if found["state"] == "done":
            seconds = time.monotonic() - started
            screen.passed(f"{found['destroyed']} value destroyed, in tables and write-ahead log, {seconds:.1f} s later")
            return True
        time.sleep(0.3)
    screen.failed(f"the erasure {erasure} is not carried out within {_ERASED_WITHIN:.0f} s")
    return False


def _told(screen: Screen, police: PublicSecurity) -> bool:
    """Print the refusals that the owner of the resource is told of; return whether there are any."""
    refusals = police.refusals()
    for entry in refusals:
        screen.line(f"{police.name} sees: {entry['reason']} refused to {entry['actor']['id']} on {entry['resource']}")
    if not refusals:
        screen.failed("the owner was not told of the refusals")
    return bool(refusals)


def _disclosing(labour: HumanResources, topic: str, row_filter: dict[str, object]) -> str:
    try:
        labour.submit_request(topic, row_filter)
    except InvalidError as error:
        return f"{error.reason}: {error.message}"
    return ""


def _refusal(pool: PoolClient, grant_id: str, labour: HumanResources, purpose: str = "", case: str = "") -> str:
    try:
        pool.fetch(grant_id, purpose=purpose or labour.purpose, case=case or labour.case)
    except RefusedError as error:
        return f"{error.reason}: {error.message}"
    return ""


def _prove(stage: _Stage, entries: list[dict[str, object]]) -> bool:
    """Print the entries, wait until the log has signed them, check one proof, and verify the whole log offline."""
    stage.screen.entries(entries)
    key = NoteKey.parse((stage.data / "log.pub").read_text().strip())
    releases = [
        entry for entry in entries if _action(entry) == "exchange:records:fetch" and _decision(entry) == "allow"
    ]
    if not releases:
        stage.screen.failed("the log holds no entry of a release")
        return False
    entry_id = str(_entry(releases[0])["id"])
    assert stage.root is not None  # noqa: S101 - tells mypy that the set-up comes first
    deadline = time.monotonic() + _SIGNED_WITHIN
    while True:
        try:
            proof = check_proof(str(stage.root.get(f"/audit/entries/{entry_id}/proof")), [key])
            break
        except UnavailableError:
            if time.monotonic() > deadline:
                stage.screen.failed(f"the log has not signed the entry {entry_id} within {_SIGNED_WITHIN:.0f} s")
                return False
            time.sleep(0.3)
    stage.screen.passed(
        f"release {entry_id[-12:]} is leaf {proof.index} of a tree of {proof.checkpoint.size}: proof holds"
    )
    report = verify_files(stage.data / "log", key=key)
    summary = "; ".join(report.lines())
    (stage.screen.passed if report.ok else stage.screen.failed)(f"verified offline: {summary}")
    return report.ok


def _entry(document: dict[str, object]) -> dict[str, object]:
    entry = document["entry"]
    return entry if isinstance(entry, dict) else {}


def _action(document: dict[str, object]) -> str:
    return str(_entry(document)["action"])


def _decision(document: dict[str, object]) -> str:
    return str(_entry(document)["decision"])
