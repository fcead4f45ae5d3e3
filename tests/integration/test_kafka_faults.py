"""What is seen on Kafka when gateways and brokers stop dead in the middle: exactly once, whole, or not at all."""

import contextlib
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from kafka.admin import ConfigResource, ConfigResourceType

from exchange.broker.kafka import broker as kafka_broker
from exchange.broker.kafka import producers, transaction
from exchange.broker.kafka import receipts as kafka_receipts
from exchange.broker.kafka.broker import KafkaBroker
from exchange.broker.kafka.settings import admin
from exchange.broker.port import Appended
from schemas.errors import ConflictError, InvalidError, PoolError, Reason, UnavailableError
from schemas.names import Lane, Topic
from tests.kit.cases.broker import KEY, HookCalls, append, batch, expected, fresh_topic, lane_of, positions_of, read_all
from tests.kit.faults.stalled_gateway import MOMENTS, PEOPLE, SALT, stopped
from tests.kit.patience import PATIENCE
from tests.kit.world.kafka import Node

pytestmark = pytest.mark.kafka


@pytest.fixture
def brokers(kafka_node: Node) -> Iterator["Gateways"]:
    gateways = Gateways(kafka_node)
    yield gateways
    gateways.close()


class Gateways:
    def __init__(self, node: Node) -> None:
        self.node = node
        self._made: list[KafkaBroker] = []

    def __call__(self, **changes: object) -> KafkaBroker:
        self._made.append(KafkaBroker(self.node.settings(max_consumers=4, **changes), key=KEY))
        return self._made[-1]

    def close(self) -> None:
        for broker in self._made:
            broker.close()


def prepared(broker: KafkaBroker) -> tuple[Topic, Lane]:
    topic = fresh_topic("faults")
    broker.create_topic(topic)
    append(broker, batch(lane_of(topic), 1, range(20)))
    return topic, lane_of(topic)


# a gateway that stops dead


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_gateway_that_wakes_after_a_takeover_appends_nothing_twice(brokers: Gateways, moment: str) -> None:
    broker = brokers()
    topic, lane = prepared(broker)
    sleepers = batch(lane, 2, range(PEOPLE), salt=SALT)
    with stopped(brokers.node.settings(), lane, 2, moment) as sleeper:
        state = broker.resume(lane)
        assert state is not None
        committed = moment == "committed"
        assert state.receipts[-1].sequence == (2 if committed else 1)
        # The connector, which had no answer, sends the same batch to the gateway that has the lane now.
        (again,) = append(broker, sleepers)
        assert again.duplicate is committed
        append(broker, batch(lane, 3, range(30)))
        became = sleeper.wake()
    assert became == ("appended" if committed else Reason.LANE_FENCED)
    found = read_all(broker, topic)
    assert len(found) == 20 + PEOPLE + 30
    assert [record for record in found if (record.partition, record.position) in set(positions_of(again.runs))] == (
        expected(again, sleepers)
    )


@pytest.mark.parametrize("moment", ["produced", "sent"])
def test_a_gateway_that_is_killed_before_its_commit_leaves_nothing(brokers: Gateways, moment: str) -> None:
    broker = brokers()
    topic, lane = prepared(broker)
    with stopped(brokers.node.settings(), lane, 2, moment) as sleeper:
        sleeper.kill()
    assert len(read_all(broker, topic)) == 20
    with pytest.raises(ConflictError) as raised:
        append(broker, batch(lane, 2, salt="too late for this one"))
    assert raised.value.reason is Reason.LANE_FENCED  # the dead one had taken the lane
    state = broker.resume(lane)
    assert state is not None
    assert state.receipts[-1].sequence == 1
    append(broker, batch(lane, 2, range(30)))
    assert len(read_all(broker, topic)) == 50


def test_a_dead_gateway_holds_up_readers_no_longer_than_its_timeout(brokers: Gateways) -> None:
    broker = brokers()
    topic, lane = prepared(broker)
    with stopped(brokers.node.settings(transaction_timeout=5.0), lane, 2, "produced") as sleeper:
        sleeper.kill()
    began = time.monotonic()
    append(broker, batch(lane_of(topic, "other"), 1, range(100)))
    while len(read_all(broker, topic)) < 120:
        assert time.monotonic() - began < 50  # Kafka's own timeout would be 60


def test_a_gateway_that_lost_its_producer_takes_only_a_lane_back_that_nobody_has_used(brokers: Gateways) -> None:
    small, other = brokers(max_producers=1), brokers()
    topic, lane = prepared(small)
    for name in ("b", "c"):  # the producer of the first lane has to go
        append(small, batch(lane_of(topic, name), 1))
    append(small, batch(lane, 2))
    for name in ("b", "c"):
        append(small, batch(lane_of(topic, name), 2))
    append(other, batch(lane, 3))
    with pytest.raises(ConflictError) as raised:
        append(small, batch(lane, 4))
    assert raised.value.reason is Reason.LANE_FENCED
    append(other, batch(lane, 4))
    assert len(read_all(other, topic)) == 20 + 3 * 8 + 4 * 8


# a broker that stops dead


def test_a_broker_that_is_killed_and_started_again_loses_and_doubles_nothing(brokers: Gateways) -> None:
    node, broker = brokers.node, brokers()
    topic, _ = prepared(broker)
    stop, acknowledged = threading.Event(), []

    def publish(number: int) -> list[Appended]:
        lane, receipts = lane_of(topic, f"p{number}"), []
        for sequence in itertools.count(1):
            if stop.is_set() and sequence > 5:
                return receipts
            while True:
                try:
                    receipts += append(broker, batch(lane, sequence, range(300)))
                    break
                except (UnavailableError, ConflictError):
                    resumed(broker, lane)
        return receipts

    threads = [threading.Thread(target=lambda n=n: acknowledged.append(publish(n))) for n in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)  # let them work for a while
    node.kill()
    node.start()
    time.sleep(0.5)
    stop.set()
    for thread in threads:
        thread.join(120)
    assert len(acknowledged) == 3
    found = read_all(brokers(), topic)
    places = {(record.partition, record.position) for record in found}
    assert len(places) == len({record.value for record in found}) == len(found)
    for receipts in acknowledged:
        assert [receipt.sequence for receipt in receipts] == list(range(1, len(receipts) + 1))
        assert all(receipt.count == 300 and set(positions_of(receipt.runs)) <= places for receipt in receipts)
    assert len(found) == 20 + 300 * sum(map(len, acknowledged))
    assert broker.find_incomplete([receipt for receipts in acknowledged for receipt in receipts]) == []


def resumed(broker: KafkaBroker, lane: Lane) -> None:
    limit = time.monotonic() + PATIENCE
    while True:
        try:
            broker.resume(lane)
        except PoolError:
            assert time.monotonic() < limit
            time.sleep(0.1)
        else:
            return


def test_a_commit_whose_answer_is_lost_is_found_out_and_its_hook_called_once(
    brokers: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, hook, real = brokers(), HookCalls(), transaction.commit
    topic, lane = prepared(broker)

    def lost(producer: object, deadline: float) -> None:
        monkeypatch.setattr(transaction, "commit", real)
        real(producer, deadline)  # type: ignore[arg-type]
        raise kafka_error(KafkaError._TIMED_OUT)

    monkeypatch.setattr(transaction, "commit", lost)
    sent = batch(lane, 2, range(30))
    (appended,) = broker.append([sent], hook)
    assert not appended.duplicate
    assert [call[1] for call in hook.calls] == [(appended,)]
    assert len(read_all(broker, topic)) == 50
    assert append(broker, sent)[0].duplicate


def test_a_commit_that_never_happened_is_made_again(brokers: Gateways, monkeypatch: pytest.MonkeyPatch) -> None:
    broker, real = brokers(), transaction.commit
    topic, lane = prepared(broker)

    def never(producer: object, deadline: float) -> None:
        monkeypatch.setattr(transaction, "commit", real)
        raise kafka_error(KafkaError._TIMED_OUT)

    monkeypatch.setattr(transaction, "commit", never)
    (appended,) = append(broker, batch(lane, 2, range(30)))
    assert not appended.duplicate
    assert len(read_all(broker, topic)) == 50
    assert broker.find_incomplete([appended]) == []


def kafka_error(code: int) -> Exception:
    return KafkaException(KafkaError(code))


def test_a_broker_that_stands_still_during_the_commit(brokers: Gateways, monkeypatch: pytest.MonkeyPatch) -> None:
    broker, hook, real = brokers(call_timeout=3.0), HookCalls(), transaction.commit
    topic, lane = prepared(broker)
    sent = batch(lane, 2, range(30))

    def still(producer: object, deadline: float) -> None:
        monkeypatch.setattr(transaction, "commit", real)
        pauses.enter_context(brokers.node.paused())
        real(producer, deadline)  # type: ignore[arg-type]

    monkeypatch.setattr(transaction, "commit", still)
    with contextlib.ExitStack() as pauses, pytest.raises(UnavailableError) as raised:
        broker.append([sent], hook)
    assert raised.value.reason is Reason.OUTCOME_UNKNOWN
    assert hook.calls == []
    resumed(broker, lane)
    append(broker, sent)
    assert len(read_all(broker, topic)) == 50


# whole or not at all


def test_a_record_that_only_the_broker_finds_too_large_tears_no_batch(brokers: Gateways) -> None:
    broker = brokers()
    topic, lane = prepared(broker)
    client = admin(brokers.node.settings(brokers.node.operator))
    client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, str(topic), {"max.message.bytes": "20000"})])
    client.close()
    hook = HookCalls()
    mixed = [batch(lane, 2, range(10)), batch(lane, 3, range(10), size=60_000), batch(lane, 4, range(10))]
    noise = random.Random(3)  # lz4 would make nothing of equal bytes
    mixed[1] = replace(mixed[1], values=[bytes(5) + noise.randbytes(60_000) for _ in range(10)])
    with pytest.raises(InvalidError) as raised:
        broker.append(mixed, hook)
    assert raised.value.reason is Reason.BATCH_TOO_LARGE
    assert hook.calls == []
    assert len(read_all(broker, topic)) == 20
    append(broker, batch(lane, 2, range(10)))
    assert len(read_all(broker, topic)) == 30


def test_a_time_far_ahead_of_the_brokers_clock_is_refused_whole(brokers: Gateways) -> None:
    broker = brokers()
    topic, lane = prepared(broker)
    ahead = int((time.time() + 7200) * 1_000_000)
    reasons = []
    for _ in range(5):  # a machine that is very busy may let the call's patience run out before the refusal comes
        with pytest.raises(UnavailableError) as raised:
            append(broker, batch(lane, 2, range(10), recorded_at=ahead))
        reasons.append(raised.value.reason)
        if reasons[-1] is Reason.CLOCK_JUMPED:
            break
    assert reasons[-1] is Reason.CLOCK_JUMPED
    assert len(read_all(broker, topic)) == 20
    append(broker, batch(lane, 2, range(10)))
    assert len(read_all(broker, topic)) == 30


def test_a_group_is_one_transaction(brokers: Gateways) -> None:
    broker, topic = brokers(), fresh_topic("faults")
    broker.create_topic(topic)
    append(broker, *(batch(lane_of(topic), sequence, range(200)) for sequence in range(1, 9)))
    markers = sum(broker.ends(topic).latest) - 8 * 200
    assert markers == 4  # one in each partition


def test_what_was_acknowledged_but_is_not_whole_is_named(brokers: Gateways) -> None:
    broker = brokers()
    _, lane = prepared(broker)
    kept = [append(broker, batch(lane, sequence, range(50)))[0] for sequence in (2, 3)]
    assert broker.find_incomplete(kept) == []
    run = kept[1].runs[0]
    lost = replace(kept[1], runs=(replace(run, last=run.last + 1), *kept[1].runs[1:]))
    beyond = replace(kept[1], runs=(replace(run, first=run.first + 9000, last=run.last + 9000),))
    others = replace(kept[1], sequence=2)
    assert broker.find_incomplete([kept[0], lost, beyond, others]) == [lost, beyond, others]


def test_receipts_that_may_still_wait_for_their_entry_stay_through_a_proof_and_a_retry(
    brokers: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = brokers()
    _, lane = prepared(broker)
    group = [batch(lane, sequence, range(40)) for sequence in range(2, 8)]
    append(broker, *group[:4])
    # From now on one receipt more than is new would not fit.
    monkeypatch.setattr(kafka_receipts, "_MAX_RAW", 20)
    with pytest.raises(ConflictError, match="expected"):
        append(broker, batch(lane, 20, range(3)))  # a gap: the lane's owner proves that it is one
    assert [receipt.sequence for receipt in kept(brokers(), lane)] == [1, 2, 3, 4, 5]
    broker.resume(lane)
    monkeypatch.setattr(kafka_broker, "split_into_transactions", lambda batches: [batches])
    append(broker, *group)  # 2 to 5 are known, and perhaps not entered yet; 6 and 7 are new
    assert [receipt.sequence for receipt in kept(brokers(), lane)] == [2, 3, 4, 5, 6, 7]


def kept(broker: KafkaBroker, lane: Lane) -> Sequence[Appended]:
    """Return what Kafka keeps of the lane, without taking it over."""
    state = broker.peek_lane(lane)
    assert state is not None
    assert state in list(broker.lanes())
    return state.receipts


class Interrupted:
    """A producer that lets somebody else write between every 20 of its records."""

    def __init__(self, real: Producer, other: Callable[[], object]) -> None:
        self._real, self._other, self._count = real, other, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def produce(self, *arguments: object, **named: object) -> None:
        self._count += 1
        if not self._count % 20:
            self._real.flush(10)
            self._other()
        self._real.produce(*arguments, **named)  # type: ignore[arg-type]


def test_a_receipt_too_long_to_keep_is_found_again_in_the_log(
    brokers: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, other = brokers(), brokers()
    topic, lane = prepared(broker)
    sequence = itertools.count(1)

    def between() -> None:
        append(other, batch(lane_of(topic, "between"), next(sequence), range(10)))

    append(broker, batch(lane, 2, range(10)))
    between()
    with monkeypatch.context() as patched:
        patched.setattr(producers, "Producer", lambda settings: Interrupted(Producer(settings), between))
        broker.resume(lane)
        patched.setattr(kafka_receipts, "_MAX_RAW", 130)
        (appended,) = append(broker, batch(lane, 3, range(200)))
    assert len(appended.runs) > 20
    state = brokers().resume(lane)
    assert state is not None
    assert state.receipts == (appended,)  # the one before it had no room
    assert kept(brokers(), lane) == (appended,)
    assert broker.find_incomplete([appended]) == []


# topics and versions


def test_a_restore_raises_every_generation(brokers: Gateways) -> None:
    broker = brokers()
    topic, _ = prepared(broker)
    before = broker.topic(topic).generation
    assert broker.renew_generations() >= 1
    after = brokers().topic(topic).generation
    assert before < after < 2**53
    assert brokers().create_topic(topic).generation == after


def test_two_topics_have_different_generations(brokers: Gateways) -> None:
    broker = brokers()
    assert len({broker.create_topic(fresh_topic()).generation for _ in range(5)}) == 5


def test_the_version_that_serves_is_accepted(brokers: Gateways) -> None:
    warnings: list[str] = []
    assert brokers().check(warnings.append) == 29  # 4.2-IV1
    assert warnings == []


@pytest.mark.parametrize("supported", [30, 33])
def test_a_version_that_loses_transactions_is_refused_or_warned_of(
    brokers: Gateways, monkeypatch: pytest.MonkeyPatch, supported: int
) -> None:
    monkeypatch.setattr("exchange.broker.kafka.version_check._highest", lambda _: supported)
    warnings: list[str] = []
    with pytest.raises(InvalidError) as raised:
        brokers().check(warnings.append)
    assert raised.value.reason is Reason.CONFIG_INVALID
    assert warnings == []
    assert brokers(replication=3).check(warnings.append) == supported
    assert brokers(on_broken_version="warn").check(warnings.append) == supported
    assert len(warnings) == 2
    with pytest.raises(InvalidError):
        brokers(replication=3, on_broken_version="refuse").check(warnings.append)
