"""Every list and `show` of `pool` escapes control characters in what departments wrote; no command writes around it."""

import ast
import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from rich.console import ConsoleDimensions

from exchange import admin_client
from exchange.audit.search.entry_rows import csv_line, entry_row
from exchange.cli import app, output
from exchange.deadlines import shipped
from schemas.errors import InvalidError, Reason
from schemas.terminal import escape_controls, escape_line
from tests.kit.cases.inventory import COLUMNS

_EVIL = (
    "ok\x1b[2K\x1b[1A\rshown\x07\x9b31m\x7f\nstate         active\tcell\x00"
    "\u202egnp\u2066\u2069\u200f\u061c\u2028line\u2029[bold][link=https://x]a[/link] 民政局"
)
_FORBIDDEN = set(_EVIL) - set("\t\n") - {one for one in _EVIL if one.isprintable()}
_TIME = "2026-10-01T00:00:00+00:00"
_CLI = Path(output.__file__).parent
# They read no text of a department: files of the log, the backup or the broker, numbers of versions, counts, places.
_OFFLINE = {
    "init", "serve", "status", "alarms", "migrate", "renew-receipts-key", "demo", "keys export", "audit verify",
    "audit check-proof", "audit bundle", "profile check", "hub rules check", "hub conflicts",
    "audit report", "audit stream", "audit reindex", "user token", "backup create", "backup verify", "backup restore",
    "backup new-key", "broker check", "broker verify", "broker schemas", "broker apply", "broker renew-generations",
}  # fmt: skip


class _Answers:
    """A pool of which every text holds control characters, whatever is asked."""

    def get(self, path: str, query: Any = None) -> Any:
        if path.endswith(("/proof", "/checkpoint")):
            return f"{_EVIL}\n"
        if path.startswith("/requests/"):  # of a grant, `history` is a word
            step = dict.fromkeys(("event", "state", "by", "at", "article", "reason", "clause"), _EVIL)
            return {**_document(), "history": [step]}
        return (
            [_document()]
            if path in {"/audit/entries", "/audit/keys", "/users", "/grants"} or path.endswith("/batches")
            else _document()
        )

    def list(self, path: str, query: Any = None) -> list[Any]:
        return [_document()]

    def texts(self, path: str, query: Any = None) -> Iterator[str]:
        yield _EVIL

    @contextlib.contextmanager
    def download(self, path: str, query: Any = None) -> Iterator[Iterator[bytes]]:
        content = csv_line(entry_row(_document()).values()).encode()
        yield iter((content[:100], content[100:]))  # within a character, it may be

    def post(self, path: str, body: Any = None) -> Any:
        return _document()


def _document() -> dict[str, Any]:
    columns = (
        "id name short_name level division_code status topic title share_type code history state consumer provider "
        "purpose legal_basis case case_rule requested_by approved_by confirmed_by unmasked_reason disclosure_reason "
        "kind subject role staff_number proposed_by decided_by created_by department connector serial revoked_by "
        "revoked_because reason zh en parent case_form ceiling epoch over fingerprint token destroyed last_used "
        "library index proof leaf_hash cursor successor zone superior office_head office_deputy security_officer"
    )
    document: dict[str, Any] = dict.fromkeys(columns.split(), _EVIL)
    document |= {
        "version": 1, "fields": [_EVIL], "masks": {_EVIL: "keep_3_4"}, "unmasked": [_EVIL], "withdrawals": True,
        "filter_discloses": [_EVIL], "row_filter": {"op": "eq", "field": _EVIL, "value": _EVIL}, "applied": True,
        "kinds": [_EVIL], "superiors": [_EVIL], "inferiors": [_EVIL], "officers_in_use": {"office_head": False},
        "rows": 100, "fewer": False, "whole": False, "read": 200_000, "releases": 3, "more": [_EVIL], "days": [
            {"day": _EVIL, "records": 3, "date": "2027-01-01", "is_workday": True, "notice": _EVIL}
        ],
        "counts": {_EVIL: 3}, "rights": {_EVIL: _EVIL},
        "events": [{"event": _EVIL, "message": _EVIL, "allowed": True, "reason": _EVIL}],
        "last": {"at": _EVIL, "records": 3, "entry": _EVIL}, "hash": _EVIL,
        "quota_per_day": 7, "revoked_at": None, "suspend_after": _EVIL, "withheld": [],
    }  # fmt: skip
    rule = ("limit", "rule", "profile", "basis", "after_pause", "due_at", "started_at", "day", "due", "content")
    document |= dict.fromkeys(rule, _EVIL)
    document |= {name: {"en": _EVIL, "zh": _EVIL} for name in ("names", "clause", "text", "starts")}
    document |= {
        "notices": [_EVIL], "extension": {"most": 1, "consent": _EVIL}, "provisional": True, "year": 1, "granted": 1,
        "due_confirmed": False,
        "rules": [{"extension": None, "clause": {"en": _EVIL, "zh": _EVIL}, "limit": _EVIL}], "profile_version": 1,
    }  # fmt: skip
    document |= dict.fromkeys(("not_before", "expires", "not_after", "expires_at", "approved_at", "time"), _TIME)
    batch = {"topic": _EVIL, "sequence": 3, "at": _EVIL, "entry": _EVIL}
    stream = dict.fromkeys(("sequence", "unacknowledged", "read", "published", "quarantined", "unchanged", "voided"), 3)
    texts = dict.fromkeys(("name", "direction", "mode", "state", "reason", "last_success", "ledger_lost"), _EVIL)
    document |= {
        "report": {"received_at": _EVIL, "program": _EVIL, "configuration": _EVIL,
                   "streams": [{**stream, **texts, "quarantine": {_EVIL: 3}}]},
        "certificate": {"not_after": _TIME, "revoked_at": None, "serial": _EVIL}, "certificates": 3,
        "last_batch": batch, "lanes": [batch], "draws": [{"grant": _EVIL, "at": _EVIL, "records": 3, "entry": _EVIL}],
    }  # fmt: skip
    document["review"] = {
        "labels": {_EVIL: _EVIL},
        "words": [_EVIL],
        "versions": [{"version": 1, "state": _EVIL, "at": _TIME, "entry": _EVIL}],
    }
    document |= dict.fromkeys(("respondent", "sign", "grant", "resource", "entry", "reported_by", "referral"), _EVIL)
    document |= {
        "side": _EVIL, "outcome": _EVIL, "due_state": _EVIL, "possible": [_EVIL], "calls": 3,
        "order": {"at": _EVIL}, "statement": {"text": _EVIL, "by": _EVIL, "late": True},
        "steps": [{"at": _EVIL, "event": _EVIL, "by": _EVIL, "reason": _EVIL}],
    }  # fmt: skip
    document |= {
        "metadata": {"title": _EVIL, "abstract": _EVIL, "share_modes": [_EVIL]}, "in_force": 1, "change": {"on": _EVIL},
        "notice": {"from_day": _EVIL, "filing": _EVIL, "reason": _EVIL, "consumers": [_EVIL]},
        "act": {"event": _EVIL, "by": _EVIL, "at": _EVIL, "reason": _EVIL, "entry": _EVIL},
        "code": _EVIL, "lead": _EVIL, "no_source": [_EVIL], "entries": [{"topic": _EVIL, "provider": _EVIL}],
        "drafts": [], "unchanged": [], "gaps": [{"row": 2, "heading": _EVIL, "code": _EVIL, "en": _EVIL}],
        "faults": [{"element": _EVIL, "code": _EVIL, "clause": _EVIL, "en": _EVIL, "zh": _EVIL}],
    }  # fmt: skip
    document |= {
        "predicate": _EVIL, "answers": _EVIL, "replaces": [_EVIL],
        "expression": {"op": "eq", "field": _EVIL, "value": _EVIL},
    }  # fmt: skip
    document |= {
        "scenario": _EVIL, "mode": _EVIL, "clock": _EVIL, "waits_for": [_EVIL], "missing": [_EVIL],
        "refusal": {"reason": _EVIL, "clause": _EVIL, "ground": _EVIL, "ground_en": _EVIL, "ground_zh": _EVIL},
    }  # fmt: skip
    figure = {"kpi": "denials", "value": 3, "entries": 2, "first": [_EVIL], "by": {_EVIL: 3}}
    document |= {
        "month": _EVIL,
        "pool": _EVIL,
        "departments": [{"department": _EVIL, "name": _EVIL, "division": _EVIL, "figures": [figure]}],
    }
    document |= dict.fromkeys(("provider_name", "title", "code"), _EVIL) | {
        "resources": 3,
        "themes": [],
        "divisions": [],
    }
    field = {**document, "since_version": 1, "last_version": 1, "element": _EVIL, "element_source": True}
    document |= {"lineage": [{**field, "mask": _EVIL, "grants": [{**document, "mask": _EVIL, "consumer_name": _EVIL}]}]}
    document |= {
        "resource": _EVIL,
        "drawn": [{"consumer": _EVIL, "consumer_name": _EVIL, "records": 3}],
        "erased": [],
        "received_at": _EVIL,
        "lane": _EVIL,
    }
    document |= {"grants": [dict(document)], "empty": {"departments": [_EVIL], "themes": [_EVIL], "divisions": [_EVIL]}}
    document["empty"]["department_themes"] = [[_EVIL, _EVIL]]
    document["entry"] = {
        "id": _EVIL, "at": 0, "action": _EVIL, "decision": "deny", "reason": _EVIL, "purpose": _EVIL, "case": _EVIL,
        "resource": _EVIL, "actor": {"id": _EVIL, "department": _EVIL, "role": _EVIL, "on_behalf_of": _EVIL},
    }  # fmt: skip
    return document


def _commands() -> Iterator[tuple[str, Any]]:
    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name, command
        for word, one in (inner or {}).items():
            yield from walk(f"{name} {word}".strip(), one)

    yield from walk("", typer.main.get_command(app))


def _arguments(command: Any, file: Path) -> list[str]:
    """Return arguments and required options, with a value of their type."""
    values = {
        "file": str(file),
        "key_file": str(file),
        "claim_file": str(file),
        "role": "auditor",
        "form": "csv",
        "department_id": _EVIL,
        "resource": "residents.v1",
        "to": "inner",
        "year": "2027",
        "days": "5",
        "version": "1",
    }
    words: list[str] = []
    for one in command.params:
        if one.param_type_name == "argument" or one.required:
            value = values.get(one.name, _EVIL)
            words += [value] if one.param_type_name == "argument" else [one.opts[0], value]
    return words


_ONLINE = sorted(name for name, _ in _commands() if name not in _OFFLINE)


_COMMANDS = dict(_commands())
_OF_SEVERAL_LINES = {
    "audit checkpoint",
    "audit prove",
    "audit export",
    "calendar change",
    "profile change",
}  # texts in a form of their own
_MORE = {
    "audit prune-keys": ["--confirm", "x"],
    "clock settle": ["--confirm", "x"],
    "user rotate": ["--token-fingerprint", "x"],
    "deadline compute": ["--start", "2026-09-30"],
}


_NEW_FILES = {"catalogue export"}  # that a command makes
_PROFILES = Path(shipped.__file__).parent / "data"
_FILES = {
    "catalogue inventory": f"{','.join(COLUMNS)}\n{','.join(['x'] * len(COLUMNS))}\n",
    "calendar import": "date,is_workday,notice\n2027-01-01,false,n\n",
    "hub predicates add": '{"op": "exists", "field": "x"}',
    "hub rules propose": '{"library": "population"}',
    "profile propose": (_PROFILES / "city-example.yaml").read_text(encoding="utf-8"),
}


class _Stream(io.StringIO):
    """Standard output, a terminal or none."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Run a command against a pool of which every text is evil; return what it printed."""
    monkeypatch.setenv("TERM", "dumb")  # rich itself writes no control sequences then
    monkeypatch.setattr("rich.console.Console.size", ConsoleDimensions(20_000, 25))
    monkeypatch.setattr(admin_client, "from_options", lambda *_: _Answers())
    file = tmp_path / "document"
    program = typer.main.get_command(app)

    def run(name: str, *more: str, terminal: bool = False) -> str:
        words = [*name.split(), *_arguments(_COMMANDS[name], file), *_MORE.get(name, []), *more]
        file.write_text(_FILES.get(name, "a: b\n"))
        if name in _NEW_FILES:
            file.unlink()
        stream = _Stream()
        stream.terminal = terminal
        with contextlib.redirect_stdout(stream):
            program.main(words, standalone_mode=False)
        return stream.getvalue()

    return run


def _has_json(name: str) -> bool:
    return any("--json" in one.opts for one in _COMMANDS[name].params)


_READING = sorted(
    name for name in _COMMANDS if name.split()[-1] in {"list", "show", "proposals", "proposal", "purposes", "keys"}
)


def test_every_list_and_every_show_is_among_the_commands_that_are_run() -> None:
    assert set(_COMMANDS) >= _OFFLINE, _OFFLINE - set(_COMMANDS)
    assert len(_READING) >= 20
    assert set(_READING) <= set(_ONLINE) | {"keys"}
    assert {name for name in _COMMANDS if _has_json(name)} <= {
        *_ONLINE, "audit verify", "broker verify", "hub conflicts", "status",
    }  # fmt: skip


@pytest.mark.parametrize("terminal", [False, True])
def test_what_a_department_wrote_cannot_control_the_terminal(run: Callable[..., str], *, terminal: bool) -> None:
    shown = 0
    for name in _ONLINE:
        said = run(name, terminal=terminal).replace("\r\n", "\n")
        assert not _FORBIDDEN & set(said), f"{name}: {said!a}"
        if name not in _OF_SEVERAL_LINES:
            assert "\nstate         active" not in said, f"{name}: a line of its own was invented"
        assert "民政局" not in said or "[bold][link=https://x]a" in said, f"{name}: markup was interpreted"
        shown += "民政局" in said
    assert shown >= 45, "the texts did not get as far as the terminal"


def test_json_keeps_the_value_of_what_it_escapes(run: Callable[..., str]) -> None:
    whole = ["audit show", "clock show"]
    for name in [*whole, *(name for name in _READING if _has_json(name))]:
        said = run(name, *([] if name in whole else ["--json"]))
        assert not (_FORBIDDEN | {"\t"}) & set(said), name
        found = json.loads(said)
        assert _EVIL in (found[0] if isinstance(found, list) else found).values(), name


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_lists_of_entries_in_files_hold_no_control_sequence(run: Callable[..., str], form: str) -> None:
    assert not _FORBIDDEN & set(run("audit list", "--format", form).replace("\r\n", "\n"))


def test_an_error_that_repeats_a_text_is_escaped_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert output.fail(InvalidError(Reason.NOT_FOUND, _EVIL, details={"proposal": _EVIL})) == 1
    said = capsys.readouterr().err
    assert not (_FORBIDDEN | {"\t"}) & set(said)
    assert said.count("\n") == 2


def test_no_command_writes_to_the_terminal_but_by_the_one_module() -> None:
    """The one that writes is named here, and so is the log of `pool serve`, whose lines are JSON."""
    writers = set()
    for file in _CLI.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            text = ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""
            if text in {"print", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write", "Console"}:
                writers.add(file.name)
    assert writers == {"output.py", "log_output.py"}


def test_escaping_leaves_ordinary_text_alone() -> None:
    for text in ("", "residents.v1", "民政局 é 🙂", "a\\u001b", "O'Brien & Söhne <a> [b]"):
        assert escape_line(text) == text
    assert escape_controls("a\r\nb\n\tc") == "a\r\nb\n\tc"
    assert escape_line("a\r\nb\n\tc") == "a\\u000d\\u000ab\\u000a\\u0009c"
    assert escape_controls("a\rb\x1b") == "a\\u000db\\u001b"
