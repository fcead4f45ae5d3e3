"""The demonstration, as its reader runs it."""

import subprocess

import pytest

from tests.kit.world.world import BIN

pytestmark = [pytest.mark.e2e, pytest.mark.postgres, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def shown() -> list[str]:
    done = subprocess.run(
        [str(BIN / "pool"), "demo", "--persons", "200"], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout.splitlines()


def test_an_insert_an_update_and_a_delete_at_the_source_appear_at_the_consumer(shown: list[str]) -> None:
    assert any("3 rows and changes read = 2 published + 1 voided" in line for line in shown)
    for kind in ("inserted", "updated", "deleted"):
        assert sum(line.strip().startswith(kind + " ") for line in shown) == 1, kind
    (updated,) = (line for line in shown if line.strip().startswith("updated "))
    assert "→ 欧" in updated


def test_what_was_delivered_is_what_was_generated_and_changed(shown: list[str]) -> None:
    assert any("✓ compared with what was generated and changed" in line for line in shown)
    assert not [line for line in shown if "✗" in line]


def test_no_replication_slot_is_left_at_its_end(shown: list[str]) -> None:
    assert any("✓" in line and "no replication slot is left" in line for line in shown)


def test_a_correction_is_told_to_who_received_the_old_value(shown: list[str]) -> None:
    assert any("an answer without a correct record" in line for line in shown)
    assert any("correction_missing" in line for line in shown)
    assert any("who received the old value is told: Human Resources" in line for line in shown)
    assert any("✓" in line and "欧" in line and "→ 阳" in line for line in shown)
