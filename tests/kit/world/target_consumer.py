"""A department that draws into a table by the commands of `pool-connect`, from the in-memory pool."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from typer.testing import CliRunner

from connectors import cli
from connectors.runtime.exit_codes import ExitCode
from tests.kit.twins.pool_twin import CASE, PURPOSE
from tests.kit.world.department import TOPIC, Department

CONFIG = f"""\
version: 1
connector: sink
exchange: {{ identity: identity/ }}
subscribe:
  - grant: g-1
    purpose: {PURPOSE}
    case: {CASE}
    batch_rows: 30
    into: {{ kind: sql, url: "${{env:TARGET}}", table: household, create_table: true }}
"""
FIELDS = ("id", "amount", "since", "note")


class Client:
    """The pool's client of a command, in this process."""

    def __init__(self, department: Department) -> None:
        self._client = department.twin.client("d-2", "sink", department.key)
        self.sign = department.key.sign

    def refresh(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class TargetConsumer:
    """A department that draws the rows whose amount is under 5 into a table."""

    def __init__(self, folder: Path, url: sa.URL) -> None:
        self.folder, self.url = folder, url
        self.source = Department(folder)
        self.source.limits = replace(self.source.limits, accept_deletes=True)
        self.source.twin.grant("g-1", TOPIC, FIELDS, lambda record: record["amount"] < 5)
        (folder / "c.yaml").write_text(CONFIG)

    def call(self, *words: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli.app, [words[0], str(self.folder / "c.yaml"), *words[1:]])
        return done.exit_code, done.stdout

    def draw(self) -> None:
        code, out = self.call("run", "--once")
        assert code in (ExitCode.OK, ExitCode.QUARANTINE), out

    def change(self, *statements: str) -> None:
        engine = sa.create_engine(self.url)
        with engine.begin() as connection:
            for each in statements:
                assert connection.exec_driver_sql(each).rowcount == 1
        engine.dispose()
