"""A hub worker is killed at each of its failpoints, on PostgreSQL: it ends like one that nobody disturbed."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from exchange.hub.fold.rules import parse
from exchange.hub.store.key_files import FileHubKeys
from exchange.hub.store.tables import metadata
from schemas import failpoints
from tests.kit import share
from tests.kit.cases.hub_claims import document
from tests.kit.cases.hub_drawing import Hub
from tests.kit.cases.hub_rows import MONTH
from tests.kit.world.hub_worker import PERSONS, hub_of, pool_of

POINTS = sorted(name for name in failpoints.NAMES if name.startswith("hub_"))
_MOST_DEATHS = 60

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.counted]


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_is_killed_there_ends_like_an_undisturbed_one(
    engine: sa.Engine, tmp_path: Path, point: str
) -> None:
    metadata.create_all(engine)
    keys = FileHubKeys.create(tmp_path / "keys")
    keys.draw(MONTH)
    seed = f"{share.seed()} {point}"
    pool = pool_of(seed)
    hub = hub_of(pool, engine, keys)
    hub.activate(parse(document()))
    url = engine.url.render_as_string(hide_password=False)
    deaths = 0
    while deaths < _MOST_DEATHS:
        # At the first run it dies as soon as it comes there; afterwards by chance, so that it gets further.
        chance = 1.0 if deaths == 0 else 0.2
        done = subprocess.run(
            [sys.executable, "-m", "tests.kit.world.hub_worker", url, str(tmp_path / "keys"), seed],
            env={**os.environ, failpoints.VARIABLE: f"{point}:kill:{chance}"},
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode == 0:
            break
        assert f"FAILPOINT {point}: SIGKILL" in done.stderr, done.stderr
        deaths += 1
    assert 1 <= deaths < _MOST_DEATHS
    undisturbed = replace(Hub.new(pool), keys=keys)
    undisturbed.draw_all()
    everyone = [hub.handle(person, kind) for person in range(PERSONS) for kind in ("ric18", "foreign_pr")]
    assert hub.state(everyone) == undisturbed.state(everyone)
