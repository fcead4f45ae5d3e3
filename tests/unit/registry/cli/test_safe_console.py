"""What a schema or a request says cannot control the terminal of who reads it with `pool-schema`."""

import json

import pytest
from rich.markup import escape
from rich.table import Table

from registry.cli.terminal import console, write

EVIL = "a\x1b[2Jb\x9b1mc\u202ed\u2028e\x07f"


@pytest.mark.parametrize("terminal", [False, True])
def test_lines_and_tables_are_escaped_and_styles_stay(capsys: pytest.CaptureFixture[str], *, terminal: bool) -> None:
    made = console()
    made._force_terminal = terminal
    table = Table("name")
    table.add_row(escape(EVIL))
    made.print(table)
    made.print(f"[green]ok[/green] {escape(EVIL)}", soft_wrap=True)
    said = capsys.readouterr().out
    assert not {"\x9b", "\u202e", "\u2028", "\x07"} & set(said)
    assert "\x1b[2J" not in said
    assert said.count("\\u202e") == 2


def test_documents_keep_their_value(capsys: pytest.CaptureFixture[str]) -> None:
    write(json.dumps({"reason": EVIL}, ensure_ascii=False) + "\n", None)
    said = capsys.readouterr().out
    assert not {"\x1b", "\x9b", "\u202e", "\u2028"} & set(said)
    assert json.loads(said) == {"reason": EVIL}
