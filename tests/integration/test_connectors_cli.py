"""`pool-connect` as a department's staff use it: what it prints, and what its exit code says."""

import json
import re
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

from connectors import cli
from connectors.runtime.exit_codes import ExitCode
from exchange.demo.people import persons
from schemas.errors import Reason, UnavailableError
from schemas.process import allocator
from tests.kit.patience import PATIENCE
from tests.kit.twins.pool_twin_process import Killer, TwinServer, command
from tests.kit.world.department import SCHEMA, TOPIC, Department, row, rows
from tests.kit.world.world import BIN

CONFIG = f"""\
version: 1
connector: drop
exchange: {{ identity: identity/ }}
source: {{ kind: files, path: drop/, ready_when: unchanged for 0s }}
publish:
  - resource: {TOPIC}
    columns:
      note: {{ null_values: [""] }}
batch: {{ rows: 40 }}
retry: {{ give_up_after: 0s }}
"""

Program = Callable[..., tuple[int, str, str]]


@pytest.fixture
def department(tmp_path: Path) -> Department:
    (tmp_path / "c.yaml").write_text(CONFIG)
    (tmp_path / "schema.avsc").write_text(json.dumps(SCHEMA))
    return Department(tmp_path)


@pytest.fixture
def program(
    department: Department, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Program]:
    """Run a command with the configuration as its file; give exit code, output and errors."""

    class RenewingPool:
        def __init__(self) -> None:
            self._client = department.twin.client("d-1", "drop", department.key)
            self.sign = department.key.sign

        def refresh(self) -> None: ...

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def __getattr__(self, name: str) -> object:
            return getattr(self._client, name)

    def run(*words: str, connected: bool = True) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            if connected:
                patch.setattr(cli, "_connect", lambda *_: RenewingPool())
            patch.setattr(sys, "argv", ["pool-connect", *words])
            with pytest.raises(SystemExit) as ended:
                cli.main()
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.chdir(department.folder)
    yield run
    for each, handler in before.items():
        signal.signal(each, handler)


def test_lint_needs_neither_pool_nor_secrets(program: Program, department: Department) -> None:
    assert program("lint", "c.yaml", connected=False) == (ExitCode.OK, "c.yaml: no errors\n", "")
    (department.folder / "c.yaml").write_text(CONFIG.replace("columns:", "colums:"))
    code, out, _ = program("lint", "c.yaml", connected=False)
    assert code == ExitCode.CONFIG
    assert out.startswith('c.yaml:7:5  error  unknown key "colums" - did you mean "columns"?')
    assert program("lint", "none.yaml", connected=False)[0] == ExitCode.CONFIG


def test_without_an_identity_a_run_says_how_to_get_one(program: Program) -> None:
    code, _, err = program("run", "c.yaml", "--once", connected=False)
    assert code == ExitCode.CONFIG
    assert "pool-connect enrol" in err


def test_a_configuration_and_a_schema_to_begin_with_need_no_pool(program: Program, department: Department) -> None:
    words = ("--connector", "drop", "--resource", "low-income.v1", "--kind", "files", "--path", "drop/")
    code, out, _ = program("init", "new.yaml", *words, connected=False)
    assert (code, "pool-connect draft-schema new.yaml" in out) == (ExitCode.OK, True)
    assert stat.S_IMODE((department.folder / "new.yaml").stat().st_mode) == 0o600
    before = (department.folder / "new.yaml").read_text()
    assert program("init", "new.yaml", *words, connected=False)[0] == ExitCode.CONFIG
    assert (department.folder / "new.yaml").read_text() == before, "no file is overwritten"
    number = str(next(persons(1))["id_number"])
    (department.folder / "drop").mkdir(exist_ok=True)
    (department.folder / "drop" / "a.csv").write_text(f"公民身份号码,发放日期\n{number},2026-01-31\n")
    code, out, err = program("draft-schema", "new.yaml", connected=False)
    assert code == ExitCode.OK
    fields = json.loads(out)["fields"]
    assert [each["name"] for each in fields] == ["id_number", "field_2"]
    assert fields[1]["type"] == ["null", {"type": "int", "logicalType": "date"}]
    assert all(each["level"].startswith("CONFIRM ") for each in fields)
    assert '"发放日期": { as: field_2 }' in err
    assert number not in out + err
    assert not (department.folder / "state").exists(), "looking leaves nothing behind"


def test_preview_shows_good_and_bad_rows_offline(program: Program, department: Department) -> None:
    department.put([row(1, note="王"), row(2, "x1234567")], encoding="gb18030")
    code, out, _ = program("preview", "c.yaml", "-n", "5", "--schema", "schema.avsc", connected=False)
    assert code == ExitCode.OK
    assert "encoding: gb18030   rows: 1 good, 1 bad" in out
    assert "id=0001  amount=1.50  since=2026-01-31  note=王" in out
    assert "line 3  amount  -> TYPE" in out
    assert "x1234567" not in out
    assert not (department.folder / "state").exists(), "looking leaves nothing behind"


def test_what_a_source_holds_cannot_control_the_terminal(program: Program, department: Department) -> None:
    department.put([row(1, note="a\x1b[2Jb\u202ec\u2028d")])
    code, out, _ = program("preview", "c.yaml", "--schema", "schema.avsc", connected=False)
    assert code == ExitCode.OK
    assert "note=a\\u001b[2Jb\\u202ec\\u2028d" in out
    department.put([], header=("id", "\x1b[2Jamount"))
    code, out, err = program("check", "c.yaml")
    assert code == ExitCode.AWAY
    assert not {"\x1b", "\u202e", "\u2028"} & set(out + err)


def test_run_publishes_and_prints_the_balance(program: Program, department: Department) -> None:
    department.put([*rows(99), row(99, "x")])
    code, _, err = program("run", "c.yaml", "--once")
    assert code == ExitCode.OK
    assert "100 rows read = 99 published + 1 quarantined + 0 unchanged; 0 voided" in err
    assert len(department.state()) == 99
    assert program("run", "c.yaml", "--once")[0] == ExitCode.OK
    assert len(department.twin.records(TOPIC)) == 99


def test_run_limits_its_heaps_before_it_has_threads(
    program: Program, department: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    monkeypatch.setattr(allocator, "limit_arenas", lambda: threads.append(threading.active_count()))
    before = threading.active_count()
    department.put(rows(1))
    assert program("run", "c.yaml", "--once")[0] == ExitCode.OK
    assert threads == [before]


def test_status_tells_how_far_each_stream_is_without_the_pool(program: Program, department: Department) -> None:
    assert json.loads(program("status", "c.yaml", "--json", connected=False)[1])[0]["state"] == "never"
    department.put([*rows(99), row(99, "x")])
    program("run", "c.yaml", "--once")
    (told,) = json.loads(program("status", "c.yaml", "--json", connected=False)[1])
    assert (told["stream"], told["state"], told["sequence"], told["unacknowledged"]) == (TOPIC, "done", 3, 0)
    assert (told["read"], told["published"], told["quarantined"], told["unchanged"]) == (100, 99, 1, 0)
    assert told["in_quarantine"] == {"TYPE": 1}
    assert re.match(r"20\d\d-", told["certificate_expires"])
    assert re.match(r"[0-9a-f-]{36}$", told["last_entry"])
    code, out, _ = program("status", "c.yaml", connected=False)
    assert code == ExitCode.OK
    assert "100 read = 99 published + 1 quarantined" in out


def test_an_empty_file_is_said_to_be_set_aside(program: Program, department: Department) -> None:
    config = CONFIG.replace("ready_when: unchanged for 0s", "ready_when: marker .ok, after_success: move to done/")
    (department.folder / "c.yaml").write_text(config)
    (department.drop / "e.csv").touch()
    (department.drop / "e.csv.ok").touch()
    code, _, err = program("run", "c.yaml", "--once")
    assert code == ExitCode.QUARANTINE
    assert "e.csv is set aside, in rejected/: e.csv has no header" in err
    assert (department.drop / "rejected" / "e.csv").exists()
    (told,) = json.loads(program("status", "c.yaml", "--json", connected=False)[1])
    assert (told["state"], told["files_set_aside"]) == ("file_rejected", 1)
    assert "1 files set aside: see `pool-connect quarantine list c.yaml`" in program("status", "c.yaml")[1]
    department.put(rows(3), name="e.csv")
    (department.drop / "e.csv.ok").touch()
    assert program("run", "c.yaml", "--once")[0] == ExitCode.OK
    assert json.loads(program("status", "c.yaml", "--json")[1])[0]["files_set_aside"] == 0


def test_quarantine_lists_without_values_and_exports_with_them(program: Program, department: Department) -> None:
    department.put([*rows(99), ("=1+1", "secret!", "", "王")], encoding="gb18030")
    program("run", "c.yaml", "--once")
    code, out, _ = program("quarantine", "list", "c.yaml", connected=False)
    assert code == ExitCode.OK
    assert "rows.csv:101  TYPE  amount" in out
    assert "secret!" not in out
    assert "王" not in out
    code, _, _ = program("quarantine", "export", "c.yaml", "--csv", "bad.csv", connected=False)
    written = department.folder / "bad.csv"
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    text = written.read_text(encoding="utf-8-sig")
    assert "secret!" in text
    assert "王" in text
    assert "'=1+1" in text, "a spreadsheet must not run what a department typed"

    written.chmod(0o644)
    (department.folder / "link.csv").symlink_to(department.folder / "elsewhere.csv")
    for taken in ("bad.csv", "link.csv", "/dev/null"):
        code, _, error = program("quarantine", "export", "c.yaml", "--csv", taken, connected=False)
        assert code == ExitCode.CONFIG, error
        assert "is there already; name another file" in error
    assert stat.S_IMODE(written.stat().st_mode) == 0o644
    assert not (department.folder / "elsewhere.csv").exists()
    assert stat.S_IMODE(Path("/dev/null").stat().st_mode) & 0o066 == 0o066, "others of this machine need it"


def test_exit_codes_say_who_has_to_act(program: Program, department: Department) -> None:
    department.put(rows(100))
    assert program("run", "c.yaml", "--once")[0] == ExitCode.OK
    department.put([])
    code, _, err = program("run", "c.yaml", "--once")
    assert code == ExitCode.PERSON
    assert "--accept-deletes" in err
    assert program("run", "c.yaml", "--once", "--accept-deletes")[0] == ExitCode.OK
    assert department.state() == {}
    department.put([("1", "1")], header=("id", "sum"))
    assert program("run", "c.yaml", "--once")[0] == ExitCode.PERSON
    department.put([("x", "y", "", "")] * 2000)
    assert program("run", "c.yaml", "--once")[0] == ExitCode.QUARANTINE
    (department.drop / "rows.csv").write_bytes(b"id\xff\xff")
    code, _, _ = program("run", "c.yaml", "--once")
    assert code == ExitCode.QUARANTINE
    assert "byte 2" in program("quarantine", "list", "c.yaml", connected=False)[1]

    def away(_: str) -> None:
        raise UnavailableError(Reason.GATEWAY_UNAVAILABLE, "the gateway is away")

    department.twin.fail = away
    department.put(rows(3))
    assert program("run", "c.yaml", "--once")[0] == ExitCode.AWAY


def test_a_quarantined_row_is_shown_with_its_values_only_on_request(program: Program, department: Department) -> None:
    department.put([*rows(3), row(3, "x1234567")])
    program("run", "c.yaml", "--once")
    number = program("quarantine", "list", "c.yaml", connected=False)[1].split()[0]
    code, out, _ = program("quarantine", "show", "c.yaml", number, connected=False)
    assert (code, "TYPE  amount: expected" in out, "x1234567" in out) == (ExitCode.OK, True, False), out
    assert "x1234567" in program("quarantine", "show", "c.yaml", number, "--original", connected=False)[1]
    assert program("quarantine", "show", "c.yaml", "999", connected=False)[0] != ExitCode.OK


def test_status_is_shown_again_and_again_until_it_is_interrupted(program: Program, department: Department) -> None:
    department.put(rows(9))
    program("run", "c.yaml", "--once")
    command = [str(BIN / "pool-connect"), "status", "c.yaml", "--watch", "--interval", "0.2"]
    for words, begin in (([], f"{TOPIC}  (publish)  done"), (["--json"], f'[{{"stream": "{TOPIC}"')):
        watching = subprocess.Popen([*command, *words], stdout=subprocess.PIPE, text=True, cwd=department.folder)
        assert watching.stdout is not None
        seen = 0
        while seen < 2:
            seen += watching.stdout.readline().startswith(begin)
        watching.send_signal(signal.SIGINT)
        watching.stdout.close()
        assert watching.wait(PATIENCE) in (0, 130)


def test_check_names_every_problem_and_changes_nothing(program: Program, department: Department) -> None:
    department.put(rows(3))
    code, out, _ = program("check", "c.yaml")
    assert code == ExitCode.OK
    assert re.search(r"ok +household.v1 .* rows.csv \(utf-8\) fits the contract", out)
    assert "0 problems" in out
    department.put([("1", "1")], header=("id", "sum"))
    code, out, _ = program("check", "c.yaml")
    assert code == ExitCode.AWAY
    assert re.search(r"FAIL  household.v1 .*amount", out)
    assert department.twin.records(TOPIC) == []
    assert not (department.folder / "state").exists()
    told = json.loads(program("check", "c.yaml", "--json")[1])
    assert {each["verdict"] for each in told} <= {"ok", "WARN", "FAIL"}


def test_check_reads_a_sample_and_says_how_many_rows_fit(program: Program, department: Department) -> None:
    department.put([*rows(99), row(99, "secret!")])
    code, out, _ = program("check", "c.yaml")
    assert code == ExitCode.OK
    assert "of the first 100 rows 99 fit: line 101  amount  -> TYPE" in out
    department.put([row(number, "secret!") for number in range(20)])
    code, out, _ = program("check", "c.yaml")
    assert code != ExitCode.OK
    assert "none of the first 20 rows of rows.csv fits the contract: line 2  amount  -> TYPE" in out
    assert "secret!" not in out
    assert not (department.folder / "state").exists()


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_finishes_what_is_in_flight_and_ends_with_0(department: Department, asked: int) -> None:
    server = TwinServer(department.twin, department.folder, department.twin.client("d-1", "drop", department.key))
    department.put(rows(9000))
    file, key = str(department.folder / "c.yaml"), department.key.private_bytes_raw()
    try:
        code = server.run(command, key, "run", file, killer=Killer(at_call=6, signal=asked))
        sent = len(department.twin.records(TOPIC))
        assert code == 0
        assert 0 < sent < 9000
        assert server.run(command, key, "run", file, "--once") == 0
    finally:
        server.close()
    assert len(department.twin.records(TOPIC)) == 9000, "nothing was published twice"


def test_a_department_s_machine_never_loads_the_pool_s_code() -> None:
    """Its imports are the promise of its dependencies: the extra [server] is not installed there."""
    script = "import json, sys, connectors.cli, connectors.conformance; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    loaded = json.loads(done.stdout)
    ours = {name for name in loaded if name.split(".")[0] == "exchange"}
    assert all(name == "exchange" or name.startswith("exchange.client") for name in ours), ours
    registry = {
        "registry.rest.app",
        "registry.postgres.subjects",
        "registry.subjects.store",
        "registry.subjects.lookup",
        "registry.directory.catalogue",
    }
    assert not registry & set(loaded)
    server = {"fastapi", "uvicorn", "alembic", "confluent_kafka", "kafka", "prometheus_client", "psycopg2", "pytest"}
    assert not server & set(loaded)
