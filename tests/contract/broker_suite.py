"""The broker's contract: the same tests for every adapter.

An adapter's test module says what it runs on, and nothing more:

    class TestMemory(BrokerContract):
        @pytest.fixture
        def rig(self) -> Iterator[Rig]: ...

Where an adapter is free, so are the tests: positions may have gaps, recorded_at is a whole number of
milliseconds, `lanes()` may show lanes of other tests, and a hint of `watch()` may come too often.
"""

from tests.contract.broker_suite_append import AppendContract
from tests.contract.broker_suite_faults import FaultContract
from tests.contract.broker_suite_lanes import LaneContract
from tests.contract.broker_suite_read import ReadContract


class BrokerContract(AppendContract, LaneContract, ReadContract, FaultContract):
    """Everything that an adapter keeps true."""
