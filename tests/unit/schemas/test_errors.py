"""Every error of the pool crosses a process boundary, and is copied, with all that it says."""

import copy
import importlib
import inspect
import pickle
import pkgutil
from collections.abc import Callable, Iterator

import pytest

import connectors
import exchange
import registry
import schemas
from exchange.broker.port import RecordsCorruptError
from exchange.client.messages import BatchRefusedError, RowRefusal
from exchange.engines import worker_process
from exchange.records.submission import RowsRefusedError
from registry.codec.codec import RowError
from registry.rest import errors as rest_errors
from schemas import status
from schemas.errors import ERROR_CLASSES, InvalidError, PoolError, Reason

_PACKAGES = {"schemas", "registry", "exchange", "connectors"}
_STANDARD = inspect.signature(PoolError)

# Those that are made of something else than the root; a new one of these fails the test until it has its line here.
_OTHERS: dict[type[PoolError], Callable[[], PoolError]] = {
    RowsRefusedError: lambda: RowsRefusedError(
        [RowError(index=3, reason=Reason.RECORD_INVALID, field="ward", message="expected a number")]
    ),
    BatchRefusedError: lambda: BatchRefusedError(
        Reason.RECORD_INVALID,
        "one record",
        sequence=7,
        rows=(RowRefusal(index=3, reason="record_invalid", field="ward", message="expected a number"),),
        details={"rows": "1"},
    ),
    RecordsCorruptError: lambda: RecordsCorruptError("residents.v1", 2, (4, 9), "stored blocks are missing"),
}


def kinds() -> list[type[PoolError]]:
    for package in (schemas, registry, exchange, connectors):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__") and ".migrations." not in module.name:
                importlib.import_module(module.name)

    def below(kind: type[PoolError]) -> Iterator[type[PoolError]]:
        yield kind
        for each in kind.__subclasses__():
            yield from below(each)

    return [kind for kind in below(PoolError) if kind.__module__.partition(".")[0] in _PACKAGES]


def sample(kind: type[PoolError]) -> PoolError:
    if kind in _OTHERS:
        return _OTHERS[kind]()
    assert inspect.signature(kind) == _STANDARD, f"{kind.__name__} is made of something else: give it a sample"
    return kind(Reason.OVERLOADED, "one sentence", details={"rows": "3"}, retry_after=1.5)


class _LaterError(InvalidError):
    """A kind that somebody adds: keyword parameters, an attribute of its own, and no thought of pickles."""

    def __init__(self, *, rows: tuple[int, ...]) -> None:
        super().__init__(Reason.RECORD_INVALID, f"{len(rows)} rows")
        self.rows = rows


@pytest.mark.parametrize("across", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_every_error_keeps_all_that_it_says(across: Callable[[PoolError], PoolError]) -> None:
    found = kinds()
    assert {RowsRefusedError, BatchRefusedError} < set(found)
    for error in [*map(sample, found), _LaterError(rows=(1, 2))]:
        error.details["later"] = "added after it was made"
        other = across(error)
        assert type(other) is type(error)
        assert vars(other) == vars(error)
        assert (str(other), other.args) == (str(error), error.args)
        assert other is not error
        other.details["later"] = "changed"
        assert error.details["later"] == "added after it was made"


def test_every_table_of_errors_has_each_class_once() -> None:
    ours = {kind for kind in PoolError.__subclasses__() if kind.__module__.partition(".")[0] in _PACKAGES}
    assert set(ERROR_CLASSES) == ours
    for table in (
        [kind for kind, _ in status._BY_CLASS],
        [kind for kind, *_ in rest_errors._KINDS],
        list(worker_process._ERRORS.values()),
    ):
        assert sorted(table, key=ERROR_CLASSES.index) == list(ERROR_CLASSES)
