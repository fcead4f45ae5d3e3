"""Evidence bundles: what is in them, that they are checked offline, and who gets what."""

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from exchange.audit.oversight.evidence_bundle import MANIFEST, pack_bundle
from exchange.demo.people import persons
from schemas import library
from schemas.errors import InvalidError, Reason, RefusedError
from schemas.names import Topic
from tests.kit.patience import wait_for
from tests.kit.world.publisher import Publisher, framed
from tests.kit.world.world import Office, World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]
TOPIC = "residents-evidenced.v1"


@pytest.fixture(scope="module")
def drawn(postgres_world: World) -> tuple[Office, Office, str, str]:
    """Return a provider, a consumer, the grant and the entry of a release under it."""
    provider, consumer = postgres_world.department("民政局证据"), postgres_world.department("医保局证据")
    provider.offer(TOPIC, library.text("population"), code=postgres_world.new_code())
    source, sink = provider.enrol("source"), consumer.enrol("sink")
    grant = consumer.request(TOPIC, ["id_number"])
    provider.approve(grant)
    with postgres_world.client(source) as pool:
        schema_id, text = pool.schema(Topic.parse(TOPIC))
        publisher = Publisher(source.pool_id, provider.id, source.connector, TOPIC, source.signing_key)
        list(pool.publish(Topic.parse(TOPIC), [publisher.batch(framed(schema_id, text, list(persons(3))))]))
    with postgres_world.client(sink) as pool:
        entry = pool.fetch(grant, position=b"\x00", purpose="eligibility", case="STANDING-1").entry_id
    root = postgres_world.root
    wait_for(lambda: root.get(f"/audit/entries/{entry}")["proof"] == "signed", "the release is signed")
    return provider, consumer, grant, entry


def made(account: Any, **body: Any) -> dict[str, bytes]:
    with account.download("/audit/bundles", body=body) as parts:
        content = b"".join(parts)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names == sorted(names)
        assert {one.date_time for one in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        return {name: archive.read(name) for name in names}


def test_a_bundle_is_checked_with_the_key_alone_and_is_two_entries(
    postgres_world: World, drawn: tuple[Office, Office, str, str], tmp_path: Path
) -> None:
    _, _, grant, entry = drawn
    root = postgres_world.root
    files = made(root, query={"resource": TOPIC})
    manifest = json.loads(files[MANIFEST])
    assert manifest["files"] == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name != MANIFEST
    }
    found = {one["id"]: one for one in manifest["entries"]}
    searched = {one["entry"]["id"]: one for one in root.get("/audit/entries", {"resource": TOPIC, "limit": 1_000})}
    assert found.keys() == searched.keys()
    assert found[entry]["proof"] == "signed"
    leaf = json.loads(files[f"entries/{entry}.json"])
    assert leaf["data"]["count"] == 3
    # What the entry says of the grant is the grant that is beside it.
    version = leaf["grant"]["version"]
    assert hashlib.sha256(files[f"grants/{grant}.{version}.json"]).hexdigest() == leaf["grant"]["hash"]
    # A third person, with no pool and a key of its own, checks each proof.
    key = postgres_world.data / "log.pub"
    for name, content in files.items():
        if not name.startswith("proofs/"):
            continue
        file = tmp_path / "one.tlog-proof"
        file.write_bytes(content)
        told = postgres_world.programs.run("pool", "audit", "check-proof", str(file), "--key", str(key)).stdout
        entry_id = Path(name).name.removesuffix(".tlog-proof")
        assert files[f"entries/{entry_id}.json"].decode() in told
    assert files["log.pub"] == key.read_bytes()
    assert b"check-proof" in files["README.txt"]
    assert "check-proof" in files["说明.txt"].decode()
    asked = json.loads(files["search.json"])
    after, before = [one["entry"] for one in root.get("/audit/entries", {"action": "audit:log:export", "limit": 2})]
    assert asked["entry"] == before["id"]
    assert asked["by"] == "authority-1"
    assert before["data"]["format"] == "bundle"
    assert before["data"]["query"].keys() == {"resource", "until"}
    assert after["data"] == {
        "digest": before["data"]["digest"],
        "count": len(found),
        "complete": True,
        "manifest": hashlib.sha256(files[MANIFEST]).hexdigest(),
    }


def test_chosen_entries_and_the_command(
    postgres_world: World, drawn: tuple[Office, Office, str, str], tmp_path: Path
) -> None:
    *_, entry = drawn
    token, file = tmp_path / "token", tmp_path / "evidence.zip"
    token.write_text(postgres_world.people.tokens["authority-1"])

    def bundle(*words: str, check: bool = True) -> str:
        options = ("--data", str(postgres_world.data), "--token-file", str(token))
        done = postgres_world.programs.run("pool", "audit", "bundle", str(file), *words, *options, check=check)
        return done.stdout + done.stderr

    assert "not_found" in bundle("--entry", "0198c0de-0000-7000-8000-000000000001", check=False)
    assert not file.exists()
    assert str(file) in bundle("--entry", entry)
    with zipfile.ZipFile(file) as archive:
        assert [name for name in archive.namelist() if name.startswith("entries/")] == [f"entries/{entry}.json"]
        assert json.loads(archive.read("search.json"))["ids"] == [entry]
    assert "exists" in bundle("--entry", entry, check=False)
    for body in ({}, {"entries": [entry], "query": {}}, {"entries": [entry] * 1_001}, {"query": {"from": "then"}}):
        with pytest.raises(InvalidError) as refused:
            made(postgres_world.root, **body)
        assert refused.value.reason is Reason.REQUEST_INVALID


def test_a_department_gets_what_it_sees_and_no_more(
    postgres_world: World, drawn: tuple[Office, Office, str, str]
) -> None:
    provider, consumer, _, entry = drawn
    stranger = postgres_world.department("林业局证据")
    files = made(consumer.account("sharing_office_head"), entries=[entry])
    # The consumer's side: neither ranges nor salt, and a proof of the hash alone.
    assert f"entries/{entry}.json" not in files
    view = json.loads(files[f"entries/{entry}.view.json"])
    assert "salt" not in view
    assert not {"from", "to", "delivered"} & view["data"].keys()
    extra = files[f"proofs/{entry}.tlog-proof"].decode().split("\n")[1]
    assert len(extra) == len("extra ") + 44
    whole = json.loads(made(provider.account("sharing_office_head"), entries=[entry])[f"entries/{entry}.json"])
    assert whole["salt"] not in b"".join(files.values()).decode()
    with pytest.raises(InvalidError) as unknown:
        made(stranger.account("sharing_office_head"), entries=[entry])
    assert unknown.value.reason is Reason.NOT_FOUND
    with pytest.raises(RefusedError):
        made(stranger.account("sharing_office_head"), query={"party": consumer.id})
    with pytest.raises(RefusedError):
        made(stranger.account("catalogue_editor"), query={})
    with pytest.raises(RefusedError):
        made(postgres_world.account("operator-evidence", "operator"), query={})


def test_the_same_files_give_the_same_bytes() -> None:
    files = {"b": b"2", "a": b"1"}
    assert pack_bundle(files, []) == pack_bundle(dict(reversed(files.items())), [])
    assert pack_bundle(files, [])[1] != pack_bundle({**files, "a": b"3"}, [])[1]
