"""The broker's contract on memory and PostgreSQL. (Kafka's stands with its integration tests.)"""

import pytest

SUITE = tuple(f"tests.contract.broker_suite{part}" for part in ("", "_append", "_faults", "_lanes", "_read"))
pytest.register_assert_rewrite(*SUITE, "tests.kit.broker")

from exchange.broker.memory import MemoryBroker, MemoryLog  # noqa: E402 - after the registration, or it has no effect
from schemas.names import Topic  # noqa: E402
from tests.contract.broker_suite import BrokerContract  # noqa: E402
from tests.kit.broker import Rig  # noqa: E402


class MemoryRig:
    joins_work = False

    def __init__(self) -> None:
        self.log = MemoryLog()

    def broker(self) -> MemoryBroker:
        return MemoryBroker(self.log)

    def make_unavailable(self) -> None:
        self.log.down = True

    def fill_disk(self) -> bool:
        self.log.full = True
        return True

    def restore(self) -> None:
        self.log.down = self.log.full = False

    def retain(self, topic: Topic, now: int) -> None:
        self.broker().retain(now)

    def compact(self, topic: Topic) -> bool:
        self.broker().compact()
        return True


class TestMemory(BrokerContract):
    @pytest.fixture
    def rig(self) -> Rig:
        return MemoryRig()
