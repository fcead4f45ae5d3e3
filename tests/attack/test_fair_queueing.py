"""What one department asks for costs the others little, whatever it asks for, and holds bounded memory.

A pool with few threads and little memory for answers. What is asserted are counts: how much of the attacker's work is
done while the others wait, how much memory is held, how often the same is released.
"""

import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import httpx
import pytest

from exchange.client import Identity, PoolClient
from schemas.errors import Reason, UnavailableError
from schemas.names import Topic
from schemas.proto.pool.v1 import exchange_pb2 as wire
from tests.kit.faults.open_calls import OpenCalls
from tests.kit.patience import PATIENCE, wait_for
from tests.kit.world.attacked import AttackedPool
from tests.kit.world.publisher import Publisher, framed
from tests.torture.clerks import SCHEMA as PERMITS

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

LARGE = Topic.parse("permits.v1")
MIB = 1024 * 1024
REPEATS = 10
REPLIES = 64 * MIB
LIMITS = (
    "[limits]\nthreads = 4\ndepartment_threads = 2\ndepartment_waiting = 250\n"
    f"replies_mb = {REPLIES // MIB}\nrepeats_per_minute = {REPEATS}\n"
)
HEADER = wire.RequestHeader(purpose="eligibility", case_number="STANDING-1")
FETCH, DESCRIBE = "/pool.v1.Exchange/Fetch", "/pool.v1.Exchange/Describe"


class Pool(AttackedPool):
    """An attacked pool with a large topic."""

    def granted(self) -> str:
        """Return another grant of the attacker on the large topic."""
        grant = self.attacker.request(str(LARGE), ["permit_no", "version", "district", "note"])
        self.provider.approve(grant)
        return grant

    @contextmanager
    def calls(self, connector: str) -> Iterator[OpenCalls]:
        """Return open calls of a connector of the attacker."""
        authority = (self.world.data / "ca" / "authority.crt").read_bytes()
        made = OpenCalls(self.world.addresses["gateway"], authority, self.identity(connector))
        try:
            yield made
        finally:
            made.close()

    def metric(self, name: str) -> float:
        """Return the value of a metric, with its labels; 0 where it is not there."""
        text = httpx.get(f"http://{self.world.addresses['metrics']}/metrics", timeout=PATIENCE).text
        found = re.search(rf"^{re.escape(name)} ([0-9.e+]+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0


def fetch(grant: str, *, max_bytes: int) -> bytes:
    """Return a fetch from the beginning."""
    return wire.FetchRequest(
        header=HEADER,
        grant_id=grant,
        position=b"\x00",
        max_bytes=max_bytes,
    ).SerializeToString()


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool.start(LIMITS) as made:
        made.provider.offer(str(LARGE), PERMITS)
        fill(made.publisher, made.source)
        yield made


def fill(publisher: PoolClient, source: Identity) -> None:
    """Publish 6 MB to the large topic."""
    lane = Publisher(source.pool_id, source.department, source.connector, str(LARGE), source.signing_key)
    schema = publisher.schema(LARGE)
    for part in range(3):
        rows = [
            {"permit_no": f"p{part}-{number}", "version": 1, "district": "东城", "note": "n" * 1_000}
            for number in range(2_000)
        ]
        list(publisher.publish(LARGE, [lane.batch(framed(*schema, rows))]))


def test_two_hundred_fetches_of_a_department_do_not_stand_before_the_calls_of_others(pool: Pool) -> None:
    """S5: of 200 fetches that wait, most still wait when the others have done their work."""
    grants = [pool.granted() for _ in range(20)]  # of each, no more than are no repetitions
    with pool.calls("busy-1") as one, pool.calls("busy-2") as other:
        for number, grant in enumerate(grants):
            calls = (one, other)[number % 2]
            calls.open(FETCH, REPEATS, first=fetch(grant, max_bytes=MIB // 4), channels=1)
        wait_for(lambda: pool.metric('pool_calls_waiting{callers="department"}') >= 10, "the department's queue fills")
        before = len(one.ended) + len(other.ended)
        for _ in range(2):
            pool.exchange()
        done = len(one.ended) + len(other.ended) - before
        assert done < 100, f"{done} of the attacker's fetches were done before those of others"
        assert one.running + other.running > 0, "the attack was over too early to show anything"


def test_a_full_queue_is_refused_and_leaves_others_theirs(pool: Pool) -> None:
    request = wire.DescribeRequest(header=HEADER, grant_id=pool.granted()).SerializeToString()
    with pool.calls("busy-1") as calls:
        calls.open(DESCRIBE, 400, first=request, channels=8)
        pool.exchange()
        wait_for(lambda: not calls.running, "all calls have ended")
        refused = Counter(calls.ended)[grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert refused
    assert pool.metric('pool_admission_refused_total{bound="department",listener="queue"}')


def test_answers_that_nobody_takes_hold_bounded_memory_and_nobody_up(pool: Pool) -> None:
    """S9: 100 fetches of 4 MiB whose consumer has stopped reading; the budget is 64 MiB, of which it gets half."""
    request = fetch(pool.granted(), max_bytes=4 * MIB)
    before, held = pool.gateway.memory_info().rss, []
    with pool.calls("mute-1") as one, pool.calls("mute-2") as other:
        for calls in (one, other):
            calls.open(FETCH, 50, first=request, channels=25, read=False)
        wait_for(lambda: pool.metric("pool_replies_held_back_total") >= 50, "fetches wait for memory")
        for _ in range(3):
            pool.exchange()
            held.append(pool.metric("pool_reply_bytes"))
        assert 0 < max(held) <= REPLIES
        grown = pool.gateway.memory_info().rss - before
        assert grown < 200 * MIB, f"{grown / MIB:.0f} MiB more"
        assert not one.ended, "a consumer that does not read is held back, not refused"
    wait_for(lambda: pool.metric("pool_reply_bytes") == 0, "the memory is given back with the calls")


def test_the_same_position_again_and_again_is_refused_with_its_reason_and_folded(pool: Pool) -> None:
    grant, beside = pool.granted(), pool.granted()
    served = 0
    with pool.world.client(pool.identity("looping")) as client:

        def draw(which: str, position: bytes = b"\x00") -> bytes:
            terms = client.fetch(which, position=position, max_records=1, purpose="eligibility", case="STANDING-1")
            return terms.next_position

        started = time.monotonic()
        following = b""
        refusals: list[UnavailableError] = []
        while len(refusals) < 20 and served < 100 * REPEATS:
            try:
                following = draw(grant)
                served += 1
            except UnavailableError as error:
                refusals.append(error)
        refilled = (time.monotonic() - started) * REPEATS / 60
        assert {error.reason for error in refusals} == {Reason.RELEASE_REPEATED}
        assert all(error.retry_after for error in refusals)
        assert REPEATS < served <= REPEATS + refilled + 2
        draw(grant, following)  # a consumer that goes on is served
        draw(beside)  # and so is its other grant
    found = pool.world.root.get("/audit/entries", {"decision": "deny", "limit": 1000})
    entries = [one["entry"] for one in found if one["entry"]["reason"] == Reason.RELEASE_REPEATED]
    assert 1 <= len(entries) <= 3, "repetitions are folded"
    assert entries[0]["grant"]["id"] == grant
