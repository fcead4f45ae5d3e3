"""The short form of `make torture`: 40 faults on lanes with unacknowledged batches."""

import os
import random

import pytest

from tests.torture.__main__ import torture


@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_forty_faults_and_everything_holds() -> None:
    seed = int(os.environ.get("TORTURE_SEED") or random.SystemRandom().randrange(10**6))
    assert torture(40, seed) == [], f"repeat it with TORTURE_SEED={seed}"
