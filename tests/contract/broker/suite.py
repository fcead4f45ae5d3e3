"""Contract suite of the broker port: the same tests for every adapter.

An adapter's test module says what it runs on, and nothing more:

    class TestMemory(BrokerContract):
        @pytest.fixture
        def rig(self) -> Iterator[Rig]: ...

Where an adapter is free, so are the tests: positions may have gaps, recorded_at is a whole number of milliseconds,
`lanes()` may show lanes of other tests, and a hint of `watch()` may come too often.
"""

from tests.contract.broker.commit_hook import CommitHookContract
from tests.contract.broker.erasure import ErasureContract
from tests.contract.broker.exactly_once import ExactlyOnceContract
from tests.contract.broker.fencing import FencingContract
from tests.contract.broker.lane_state import LaneStateContract
from tests.contract.broker.outages import OutageContract
from tests.contract.broker.reading import ReadContract
from tests.contract.broker.record_times import RecordTimeContract
from tests.contract.broker.records import RecordContract
from tests.contract.broker.retention import RetentionContract
from tests.contract.broker.topics import TopicContract
from tests.contract.broker.watching import WatchContract


class BrokerContract(
    TopicContract,
    RecordContract,
    ExactlyOnceContract,
    CommitHookContract,
    LaneStateContract,
    FencingContract,
    ReadContract,
    RecordTimeContract,
    WatchContract,
    RetentionContract,
    ErasureContract,
    OutageContract,
):
    """Everything that an adapter promises."""
