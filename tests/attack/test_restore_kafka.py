"""A pool with its records on Kafka loses its database: Kafka has kept them, and nobody publishes anything again.

Receipts and retractions are brought up to Kafka from the surviving log, and from what Kafka remembers of each lane.
"""

import shutil
import signal
from collections.abc import Iterator

import pytest

from schemas.errors import PoolError, Reason
from tests.e2e.conftest import kafka_section
from tests.kit.patience import wait_for
from tests.kit.world import kafka
from tests.kit.world.lost import City, refused_fetch, restored, serving, settle, verify
from tests.kit.world.world import World, kill_postmaster

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def city() -> Iterator[City]:
    """A city whose database is lost, with a void and an erasure after the backup.

    Its Kafka is its own: a restore reads every topic, and those of other tests are not this pool's.
    """
    with kafka.node() as node, World.start(kafka_section(node)) as world:
        city = City(world)
        city.publish(range(30), 1)
        assert len(city.draw(city.kept, city.drawer)[0]) == 30
        city.back_up()
        city.go_on(erased="confirmed")
        city.void(8)
        assert not {"p7", "p8"} & city.draw(city.kept, city.drawer)[0].keys()
        city.wait_until_signed("exchange:records:publish")
        (world.folder / "kept").write_text(city.checkpoint)
        shutil.copytree(world.data / "log", world.folder / "log-copy")
        city.void(9)  # what follows is in no log
        city.publish(range(45, 46), 3)
        world.stop(signal.SIGKILL)
        kill_postmaster(world.data)
        world.data.rename(world.folder / "lost")
        shutil.rmtree(world.folder / "lost" / "pg")
        yield city


def test_every_lane_goes_on_and_what_was_voided_erased_and_revoked_stays_so(city: City) -> None:
    world = city.world
    with restored(city, "restored", "--log", world.folder / "log-copy", "--since", world.folder / "kept") as said:
        assert f"terminated      {city.ended}" in said
        assert "Kafka has kept every batch: 3 receipts come from the log, 2 from Kafka alone" in said
        assert "publishes the rest again" not in said, "no lane is set back"
        assert refused_fetch(city, city.kept, city.drawer) is Reason.RESTORE_UNSETTLED
        city.publish(range(40, 45), 1)  # the next batch of the lane, without a look at what the pool has
        settle(world)
        wait_for(lambda: serving(city), "records are released again")
        with pytest.raises(PoolError) as refused:
            city.draw(city.kept, city.thief)
        assert refused.value.reason is Reason.CERTIFICATE_REVOKED
        assert refused_fetch(city, city.ended, city.drawer) is Reason.GRANT_NOT_ACTIVE
        assert refused_fetch(city, city.kept, city.drawer, city.position) is Reason.TOPIC_GENERATION_CHANGED
        drawn, _ = city.draw(city.kept, city.drawer)
        gone = {7, 8, 9}  # erased; voided; voided in a batch that Kafka alone has
        assert drawn == {f"p{n}": 2 if n < 5 else 3 if n >= 45 else 1 for n in range(46) if n not in gone}
        address = world.data / "database-url"
        done = verify(
            city, "--since", world.folder / "kept", "--database", address, "--secrets", world.data / "secrets"
        )
        assert done.returncode == 0, done.stdout
        assert "the pool was restored from the backup of" in done.stdout
