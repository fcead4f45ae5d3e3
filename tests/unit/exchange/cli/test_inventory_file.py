"""Inventory files: a row of the file is a row of the table, and a hostile file costs no more than its size."""

from pathlib import Path

from exchange.cli.catalogue.inventory import read_inventory


def test_a_character_that_some_take_for_a_line_end_divides_no_row(tmp_path: Path) -> None:
    for mark in "\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e":
        file = tmp_path / "inventory.csv"
        file.write_text(f"title,abstract\nfirst{mark}part,x\nsecond,y\n", encoding="utf-8")
        assert read_inventory(file) == (["title", "abstract"], [(2, [f"first{mark}part", "x"]), (3, ["second", "y"])])


def test_rows_end_as_any_system_writes_them_and_a_text_may_have_lines(tmp_path: Path) -> None:
    for end in ("\n", "\r\n", "\r"):
        file = tmp_path / "inventory.csv"
        file.write_bytes(f'title,abstract{end}"a{end}b",x{end}{end}c,y{end}'.encode())
        assert [number for number, _ in read_inventory(file)[1]] == [2, 5]


def test_a_header_of_a_million_empty_columns_is_read_in_passing(tmp_path: Path) -> None:
    """Cut off one by one, with a copy of the rest each time, they would take an hour."""
    file = tmp_path / "inventory.csv"
    file.write_text(f"title{',' * 1_000_000}\nx\n", encoding="utf-8")
    assert read_inventory(file) == (["title"], [(2, ["x"])])
