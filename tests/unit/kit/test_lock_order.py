"""The rule that no reader is opened within a transaction: its watch sees the product's code and lets tests look."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from registry.database.unit_of_work import Database, MemoryDatabase
from tests.kit import lock_order


def function_of(module: str, code: str) -> Callable[[Any], object]:
    """Return `act` of a piece of code as if it stood in a module."""
    names: dict[str, Any] = {"__name__": module}
    exec(code, names)
    act: Callable[[Any], object] = names["act"]
    return act


READ = """
def act(database):
    with database.read():
        return "read"
"""
NESTED = """
def act(database):
    with database.begin(), database.read():
        return "read"
"""


def test_a_reader_within_a_transaction_fails_the_call_and_the_test() -> None:
    database = MemoryDatabase()
    for module in ("registry.subjects.somewhere", "exchange.records.somewhere"):
        with pytest.raises(AssertionError, match=rf"{module}:3 opens read\(\) within begin\(\) of {module}:3"):
            function_of(module, NESTED)(database)
        assert len(lock_order.violations()) == 1
    with database.begin(), pytest.raises(AssertionError, match=r"within begin\(\) of .*test_lock_order"):
        function_of("registry.somewhere", READ)(database)
    assert len(lock_order.violations()) == 1


def test_a_reader_before_after_and_beside_a_transaction_is_allowed() -> None:
    read, database = function_of("exchange.somewhere", READ), MemoryDatabase()
    assert read(database) == "read"
    with database.read(), database.begin():
        pass
    with database.begin():
        assert read(MemoryDatabase()) == "read", "of another database"
        found: list[object] = []
        other = threading.Thread(target=lambda: found.append(read(database)))
        other.start()
        other.join()
        assert found == ["read"], "in another thread"
        assert look_from_outside(database) == "read", "a test may"
    assert read(database) == "read"


def look_from_outside(database: Database) -> str:
    with database.read():
        return "read"
