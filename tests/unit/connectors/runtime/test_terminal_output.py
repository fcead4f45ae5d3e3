"""Names, cells and messages that others wrote cannot control the terminal of who runs `pool-connect`."""

import ast
import io
import json
import sys
from pathlib import Path

import pytest

import connectors
from connectors import cli
from connectors.runtime.terminal_output import ProgressReporter, print_error, print_json, print_line
from connectors.state.ledger import RunReport
from schemas.errors import InvalidError, Reason

EVIL = "a\x1b[2Jb\x9b1mc\u202ed\u2028e\x07f\rg[bold]h[/bold]"
FORBIDDEN = set("\x1b\x9b\u202e\u2028\x07\r")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_errors_and_documents_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    print_line(f"{EVIL}\nfake")
    print_error(f"{EVIL}\nfake")
    print_json({"name": EVIL})
    told = capsys.readouterr()
    line, document = told.out.splitlines()
    assert not FORBIDDEN & set(told.out + told.err)
    assert "\\u001b[2J" in line
    assert line.endswith("\\u000afake")
    assert json.loads(document) == {"name": EVIL}
    assert told.err.splitlines()[1] == "  fake"


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_and_notices_are_escaped(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> None:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr(sys, "stderr", stream)
    reporter = ProgressReporter()
    reporter.progress(RunReport(id=1, portion=EVIL))
    if terminal:
        assert reporter._bars is not None
        reporter._bars.refresh()
    reporter.notify(EVIL)
    reporter.close()
    told = stream.getvalue()
    assert "\x1b[2J" not in told
    assert not (FORBIDDEN - {"\x1b", "\r"}) & set(told)  # the progress line itself moves the cursor
    assert told.count("\\u202ed\\u2028e\\u0007f\\u000dg[bold]h[/bold]") >= 2


@pytest.mark.parametrize("width", ["200", "80"])
def test_a_bar_says_how_far_it_is_on_a_narrow_terminal_too(monkeypatch: pytest.MonkeyPatch, width: str) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", width)
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    reporter = ProgressReporter()
    portion = "public.a_table_with_a_name_that_is_very_long"
    reporter.progress(RunReport(id=1, portion=portion, read=610, published=600, quarantined=10, total=1_000))
    assert reporter._bars is not None
    reporter._bars.refresh()
    reporter.close()
    told = stream.getvalue()
    assert "public.a_table" in told
    assert "61%" in told
    assert "━" in told
    assert "610/1,000" in told


def test_a_plain_line_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    ProgressReporter().progress(RunReport(id=1, portion="card", read=610, published=600, quarantined=10, total=1_000))
    expected = "card: publishing, 61%, 610 read, 600 published, 10 quarantined, 0 unchanged\n"
    assert stream.getvalue() == expected


def test_bars_of_files_that_are_done_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    reporter = ProgressReporter()
    for number in range(20):
        for read in (0, 50, 100):
            reporter.progress(RunReport(id=number, portion=f"{number}.csv", read=read, total=100))
    assert reporter._bars is not None
    assert len(reporter._bars.tasks) == 1
    reporter.close()


def test_a_subscription_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    ProgressReporter().progress(RunReport(id=1, portion="g-1", read=7, published=6, quarantined=1, outcome="drawing"))
    assert stream.getvalue() == "g-1: drawing, 7 received, 6 written, 1 rejected\n"


def test_a_comparison_says_how_many_rows_it_has_read(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    ProgressReporter().progress(RunReport(id=0, portion="card", read=7_000, outcome="comparing"))
    assert stream.getvalue() == "card: comparing, 7,000 read\n"


def test_an_error_of_the_pool_is_escaped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise InvalidError(Reason.NOT_FOUND, EVIL)

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit):
        cli.main()
    told = capsys.readouterr().err
    assert not FORBIDDEN & set(told)
    assert told.startswith("not_found: a\\u001b[2J")


def test_no_other_module_writes_to_the_terminal() -> None:
    folder = Path(connectors.__file__).parent
    for file in folder.rglob("*.py"):
        if file.name == "terminal_output.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            assert not (isinstance(called, ast.Name) and called.id == "print"), file
            written = isinstance(called, ast.Attribute) and called.attr == "echo"
            stream = isinstance(node, ast.Attribute) and node.attr in {"stdout", "stderr"}
            assert not written, file
            assert not stream, file


@pytest.mark.parametrize(("locale", "chinese"), [("zh_CN.UTF-8", True), ("C.UTF-8", False)])
def test_an_error_is_explained_in_the_language_of_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], locale: str, *, chinese: bool
) -> None:
    def fail() -> None:
        raise InvalidError(Reason.DELETE_GUARD, "too many keys are missing")

    monkeypatch.setenv("LC_ALL", locale)
    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit):
        cli.main()
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "delete_guard: too many keys are missing"
    assert (len(told) == 2) is chinese
    assert not chinese or "删除保护" in told[1]
