"""The departments' own tables, and the clerks who change them all the time.

A table holds some of a fixed set of permits. Every change gives a row a version that no other row ever had, so that a
record that is found anywhere tells which change it was.
"""

import itertools
import json
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

GRANTED = "东城"
DISTRICTS = (GRANTED, "西城")
FIELDS = ("permit_no", "version", "district")

SCHEMA = json.dumps(
    {
        "type": "record",
        "namespace": "torture",
        "name": "Permit",
        "zh": "许可",
        "key": ["permit_no"],
        "fields": [
            {"name": name, "zh": zh, "type": kind, "level": "G2", "personal": "N", "sensitive": "N", "mask": "none"}
            for name, zh, kind in (
                ("permit_no", "许可编号", "string"),
                ("version", "版本", "long"),
                ("district", "区", "string"),
                ("note", "备注", ["null", "string"]),
            )
        ],
    },
    ensure_ascii=False,
)

Row = tuple[str, int, str]


class Clerk:
    """One table and the thread that changes it."""

    def __init__(self, path: Path, prefix: str, versions: "itertools.count[int]", seed: int, permits: int) -> None:
        self.path = path
        self.permits = [f"{prefix}{number:04d}" for number in range(permits)]
        self.districts: dict[tuple[str, int], str] = {}  # of every row that ever was
        self._versions = versions
        self._draw = random.Random(seed)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"clerk-{prefix}", daemon=True)
        self._may_delete: Callable[[], bool] | None = None
        with self._open() as sql:
            sql.execute("PRAGMA journal_mode = WAL")
            sql.execute(
                "CREATE TABLE permits (permit_no TEXT NOT NULL PRIMARY KEY, version INTEGER NOT NULL, "
                "district TEXT NOT NULL, note TEXT)"
            )
            self._enter(sql, self.permits[: permits // 2])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def restore(self, may_delete: Callable[[], bool]) -> None:
        """Enter every missing permit again, and delete none until `may_delete`.

        A connector that has lost its ledger cannot know which keys left the table before; what it says in such a case
        (status: "keys that left the source before it cannot be voided") has this remedy, and it is the operator's.
        """
        with self._lock, self._open() as sql:
            present = {row[0] for row in sql.execute("SELECT permit_no FROM permits")}
            self._enter(sql, [permit for permit in self.permits if permit not in present])
            self._may_delete = may_delete

    def rows(self) -> dict[str, Row]:
        with self._open() as sql:
            return {row[0]: row for row in sql.execute("SELECT permit_no, version, district FROM permits")}

    def _work(self) -> None:
        while not self._stop.wait(0.1 + 0.3 * self._draw.random()):
            self._change()

    def _change(self) -> None:
        with self._lock, self._open() as sql:
            if self._may_delete is not None and self._may_delete():
                self._may_delete = None
            chosen = self._draw.sample(self.permits, self._draw.randint(1, len(self.permits) // 4))
            leaving = len(chosen) // 4 if self._may_delete is None else 0
            sql.executemany("DELETE FROM permits WHERE permit_no = ?", [(permit,) for permit in chosen[:leaving]])
            self._enter(sql, chosen[leaving:])

    def _enter(self, sql: sqlite3.Connection, permits: list[str]) -> None:
        rows = [(permit, next(self._versions), self._draw.choice(DISTRICTS), "备注" * 10) for permit in permits]
        self.districts.update({row[:2]: row[2] for row in rows})
        sql.executemany("INSERT OR REPLACE INTO permits VALUES (?, ?, ?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=60)) as connection, connection:
            yield connection
