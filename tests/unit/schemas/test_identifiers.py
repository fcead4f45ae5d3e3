"""Identifiers: their form, and that nobody gets one twice."""

import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from schemas.identifiers import random_id, uuid7


@given(st.integers(0, 2**48 * 1000 - 1))
def test_a_uuid_says_its_millisecond_its_version_and_its_variant(microseconds: int) -> None:
    made = uuid7(microseconds)
    read = uuid.UUID(made)
    assert (str(read), read.version, read.variant) == (made, 7, uuid.RFC_4122)
    assert read.int >> 80 == microseconds // 1000


def test_every_random_bit_of_a_uuid_is_sometimes_set_and_sometimes_not() -> None:
    seen = [uuid.UUID(uuid7(0)).int for _ in range(400)]
    free = (1 << 62) - 1 | ((1 << 12) - 1) << 64
    assert (sum(1 << k for k in range(128) if any(one >> k & 1 for one in seen)) & free) == free
    assert sum(1 << k for k in range(128) if all(one >> k & 1 for one in seen)) & free == 0


def test_no_id_is_given_twice_in_any_thread() -> None:
    with ThreadPoolExecutor(8) as threads:
        ids = [one for some in threads.map(lambda _: [random_id() for _ in range(500)], range(16)) for one in some]
        ids += [one for some in threads.map(lambda _: [uuid7(0) for _ in range(500)], range(16)) for one in some]
    assert len(set(ids)) == len(ids)
    assert {len(one) for one in ids} == {32, 36}


FORKING = """
import os
from schemas.identifiers import random_id
random_id()  # so that there is something left of a lot
if not os.fork():
    print(*(random_id() for _ in range(10)), flush=True)
    os._exit(0)
os.wait()
print(*(random_id() for _ in range(10)))
"""


def test_a_forked_process_gives_none_that_its_parent_gives() -> None:
    said = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, check=True).stdout.split()
    assert len(set(said)) == 20
