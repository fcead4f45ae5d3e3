"""Client tools of PostgreSQL: the nearest that fits the server, and a clear answer where none does."""

from pathlib import Path

import pytest

from exchange.backup.client_tools import archive_reader, check_server, dump_tool, restore_tool
from schemas.errors import InvalidError


def tools(folder: Path, major: int) -> Path:
    for name in ("pg_dump", "pg_restore"):
        (folder / name).write_text(f'#!/bin/sh\necho "{name} (PostgreSQL) {major}.3 (Debian {major}.3-1)"\n')
        (folder / name).chmod(0o755)
    return folder


def test_an_older_tool_than_the_server_is_no_tool(tmp_path: Path) -> None:
    tools(tmp_path, 16)
    assert dump_tool(16, tmp_path).major == 16
    assert dump_tool(15, tmp_path).major == 16
    with pytest.raises(InvalidError, match=r"no pg_dump of version 17 or later.*found: .*\(16\)"):
        dump_tool(17, tmp_path)


def test_a_server_that_is_too_old_is_refused() -> None:
    assert check_server(150_004) == 15
    with pytest.raises(InvalidError, match="version 14; expected 15"):
        check_server(140_010)


@pytest.mark.parametrize(("client", "server", "target", "fits"), [
    (15, 15, 15, True), (15, 15, 16, True), (16, 16, 15, False), (18, 15, 15, False), (18, 15, 17, True),
])  # fmt: skip
def test_a_backup_goes_to_a_server_that_reads_it(
    tmp_path: Path, client: int, server: int, target: int, *, fits: bool
) -> None:
    tools(tmp_path, client)
    if fits:
        assert restore_tool(client=client, server=server, target=target, folder=tmp_path).major == client
        return
    with pytest.raises(InvalidError, match=f"PostgreSQL {target}"):
        restore_tool(client=client, server=server, target=target, folder=tmp_path)


def test_a_later_pg_restore_than_the_server_is_named(tmp_path: Path) -> None:
    tools(tmp_path, 18)
    with pytest.raises(InvalidError, match="install the client tools of version 16"):
        restore_tool(client=16, server=16, target=16, folder=tmp_path)


def test_an_archive_is_read_by_its_own_version_or_a_later_one(tmp_path: Path) -> None:
    tools(tmp_path, 16)
    assert archive_reader(16, tmp_path) is not None
    assert archive_reader(18, tmp_path) is None
