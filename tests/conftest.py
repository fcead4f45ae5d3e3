import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings

# Suites and kits assert too; said before the first of them is imported.
pytest.register_assert_rewrite("tests.kit", "tests.contract", "tests.torture")

from registry.database.connection_pool import create_engine  # noqa: E402
from tests.kit import lock_order, share  # noqa: E402
from tests.kit.world import postgres  # noqa: E402

if TYPE_CHECKING:
    from tests.kit.world.kafka import Node

# The one profile: no deadlines, which a busy machine breaks, and examples by the seed of the run even where CI is set.
settings.register_profile(
    "pool", deadline=None, print_blob=True, derandomize=False, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("pool")
postgres.configure(sync=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pool", "seed and share of the counted tests (tests/kit/share.py)")
    group.addoption("--seed", type=int, default=share.new_seed(), help="repeat a run's random choices [POOL_SEED]")
    group.addoption(
        "--share",
        choices=("ci", "full"),
        default=os.environ.get("POOL_SHARE") or "ci",
        help="how much of each large count: a part, or all of it [POOL_SHARE]",
    )


@pytest.hookimpl(tryfirst=True)  # before Hypothesis reads its own seed
def pytest_configure(config: pytest.Config) -> None:
    share.configure(config.option.seed, config.option.share)
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(share.seed())


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {share.seed()} (pytest --seed {share.seed()} repeats it), share: {config.option.share}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    """Print the seed below what failed, too: the header is far away by then."""
    if exitstatus:
        terminalreporter.write_line(f"seed: {share.seed()} (pytest --seed {share.seed()} repeats it)")


@pytest.hookimpl(tryfirst=True)  # before any fixture
def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs_package"):
        share.needs_package(*marker.args, **marker.kwargs)


@pytest.fixture(scope="session", autouse=True)
def watched_databases() -> Iterator[None]:
    with lock_order.watch():
        yield


@pytest.fixture(autouse=True)
def lock_order_is_kept(watched_databases: None) -> Iterator[None]:
    """Fail a test in which the product opened a reader within a transaction, even if it caught the error (ADR 0042)."""
    lock_order.violations()
    yield
    found = lock_order.violations()
    assert not found, found


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[sa.URL]:
    with postgres.cluster() as url:
        yield url


@pytest.fixture(scope="session")
def databases(postgres_server: sa.URL) -> postgres.DatabasePool:
    return postgres.DatabasePool(postgres_server)


@pytest.fixture
def database(databases: postgres.DatabasePool) -> Iterator[sa.URL]:
    with databases.database() as url:
        yield url


@pytest.fixture
def engine(database: sa.URL) -> Iterator[sa.Engine]:
    engine = create_engine(database, connections=15)  # as the pool does
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def kafka_node() -> Iterator["Node"]:
    """One real Kafka with mutual TLS and the shipped access rules, for all tests that leave it as they found it."""
    from tests.kit.world import kafka  # the two Kafka libraries take a while to import, and most tests need neither

    with kafka.node() as node:
        yield node
