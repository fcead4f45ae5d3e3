"""The short form of `make torture`: some faults on lanes with unacknowledged batches. TORTURE_SEED repeats a run."""

import os

import pytest

from tests.kit.share import count, random_of
from tests.torture.__main__ import torture


@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_faults_hit_unacknowledged_batches_and_everything_holds() -> None:
    seed = int(os.environ.get("TORTURE_SEED") or random_of("torture").randrange(10**6))
    assert torture(count(40, 12), seed) == [], f"repeat it with TORTURE_SEED={seed}"
