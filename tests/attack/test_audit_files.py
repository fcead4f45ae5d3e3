"""Attacks on the log's files. The auditor holds the verification key and yesterday's checkpoint, nothing else."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exchange.audit.note import FileSigner, checkpoint_text, sign_note
from exchange.audit.tiles import Edge, TileFiles, decode_bundle, encode_bundle
from exchange.audit.verify import VerificationReport, main, verify_files
from schemas.access import Action
from schemas.audit import AuditEntry, Checkpoint, Decision, GrantRef, from_leaf, to_leaf
from schemas.errors import Reason
from schemas.merkle import leaf_hash
from tests.kit.cases.audit import ORIGIN, Entries, LogWorld, leaves_of, memory_world

Attack = Callable[["Log"], None]


class Log:
    """A log of 600 entries over two days, and what the auditor keeps of the first."""

    def __init__(self, folder: Path) -> None:
        self.made = LogWorld(memory_world(), folder)
        ledger, sequencer = self.made.world.ledger(), self.made.sequencer()
        self.made.fill(ledger, 300)
        sequencer.step()
        self.yesterday = self.made.note()
        self.made.fill(ledger, 300)
        sequencer.step()
        self.folder = folder
        self.leaves = leaves_of(self.made.world)

    def verify(self) -> VerificationReport:
        return verify_files(self.folder, key=self.made.signer.key, since=self.yesterday)

    def edit(self, path: str, change: Callable[[bytes], bytes]) -> None:
        (self.folder / path).write_bytes(change((self.folder / path).read_bytes()))

    def edit_leaves(self, path: str, change: Callable[[list[bytes]], list[bytes]]) -> None:
        self.edit(path, lambda bundle: encode_bundle(change(decode_bundle(bundle))))

    def swap(self, one: str, other: str) -> None:
        content = (self.folder / one).read_bytes()
        self.edit(one, lambda _: (self.folder / other).read_bytes())
        self.edit(other, lambda _: content)

    def double_first(self) -> None:
        """The second entry in place of the first, in the tile as well."""
        self.edit_leaves("tile/entries/000", lambda some: [some[1], *some[1:]])
        self.edit("tile/0/000", lambda content: content[32:64] + content[32:])

    def rewrite(self, leaves: list[bytes]) -> None:
        """What the holder of the signing key can do: another log, all of a piece, rightly signed."""
        write_log(self.folder, leaves, self.made.signer)


def write_log(folder: Path, leaves: list[bytes], signer: FileSigner) -> None:
    edge, files = Edge(), TileFiles(folder)
    for leaf in leaves:
        for path, content in edge.append(leaf, leaf_hash(leaf)):
            files.write(path, content)
    for path, content in edge.partials():
        files.write(path, content)
    checkpoint = Checkpoint(origin=ORIGIN, size=edge.size, root=edge.root())
    files.write("checkpoint", sign_note(checkpoint_text(checkpoint), [signer]).encode())


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log")


def kinds(report: VerificationReport) -> set[tuple[str, int | None]]:
    return {(finding.kind, finding.index) for finding in report.findings}


def flip(content: bytes) -> bytes:
    return content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]


def test_what_nobody_touched_is_in_order(log: Log) -> None:
    report = log.verify()
    assert report.findings == []
    assert (report.ok, report.exit_code, report.entries) == (True, 0, 600)


FILES: list[tuple[str, Attack, set[tuple[str, int | None]]]] = [
    (
        "one entry changed",
        lambda log: log.edit_leaves("tile/entries/001", lambda some: [*some[:44], some[44][:-1] + b" ", *some[45:]]),
        {("entry.changed", 300)},
    ),
    (
        "one entry deleted",
        lambda log: log.edit_leaves("tile/entries/001", lambda some: some[:10] + some[11:]),
        {("entry.deleted", 266)},
    ),
    (
        "five entries deleted",
        lambda log: log.edit_leaves("tile/entries/000", lambda some: some[:10] + some[15:]),
        {("entry.deleted", 10)},
    ),
    (
        "two entries swapped",
        lambda log: log.edit_leaves(
            "tile/entries/000", lambda some: [*some[:3], some[7], *some[4:7], some[3], *some[8:]]
        ),
        {("entry.swapped", 3)},
    ),
    (
        "an entry smuggled in",
        lambda log: log.edit_leaves("tile/entries/000", lambda some: [*some[:3], some[7], *some[3:]]),
        {("entry.inserted", 3)},
    ),
    (
        "the last entry deleted",
        lambda log: log.edit_leaves("tile/entries/002.p/88", lambda some: some[:-1]),
        {("entry.deleted", 599)},
    ),
    (
        "a bundle cut off within an entry",
        lambda log: log.edit("tile/entries/001", lambda content: content[:-3]),
        {("entries.unreadable", 256)},
    ),
    (
        "a bundle cut off between entries",
        lambda log: log.edit_leaves("tile/entries/001", lambda some: some[:200]),
        {("entry.deleted", 456)},
    ),
    ("a bundle removed", lambda log: (log.folder / "tile/entries/000").unlink(), {("entries.missing", 0)}),
    ("a bundle emptied", lambda log: log.edit("tile/entries/000", lambda _: b""), {("entry.deleted", 0)}),
    ("a hash changed", lambda log: log.edit("tile/0/001", flip), {("tile.changed", 256 + 31)}),
    ("a tile cut off", lambda log: log.edit("tile/0/001", lambda content: content[:-32]), {("tile.length", None)}),
    ("a tile removed", lambda log: (log.folder / "tile/0/000").unlink(), {("tile.missing", None)}),
    (
        "two tiles swapped",
        lambda log: log.swap("tile/0/000", "tile/0/001"),
        {("tile.changed", 0), ("tile.changed", 256)},
    ),
    (
        "an upper hash changed",
        lambda log: log.edit("tile/1/000.p/2", lambda content: bytes(32) + content[32:]),
        {("tile.changed", None)},
    ),
    (
        "entry and hash changed alike",
        lambda log: log.double_first(),
        {
            ("root.mismatch", None),
            ("since.fork", None),
            ("counter.gap", 0),
            ("counter.repeat", 1),
            ("tile.changed", None),
        },
    ),
    ("no checkpoint", lambda log: (log.folder / "checkpoint").unlink(), {("checkpoint.missing", None)}),
    (
        "a checkpoint of another size",
        lambda log: log.edit("checkpoint", lambda note: note.replace(b"\n600\n", b"\n599\n")),
        {("checkpoint.signature", None)},
    ),
    (
        "a checkpoint signed by a stranger",
        lambda log: write_log(log.folder, log.leaves, FileSigner(ORIGIN, Ed25519PrivateKey.generate())),
        {("checkpoint.signature", None)},
    ),
]


@pytest.mark.parametrize(("attack", "expected"), [case[1:] for case in FILES], ids=[case[0] for case in FILES])
def test_a_touched_file_is_named(log: Log, attack: Attack, expected: set[tuple[str, int | None]]) -> None:
    attack(log)
    report = log.verify()
    assert kinds(report) == expected
    assert report.exit_code == 1


# With the real key: only what was kept outside, and what the entries say of each other, can tell.


def test_the_last_entry_cut_off_and_signed_anew_is_found(log: Log) -> None:
    """Yesterday's checkpoint covers 300 entries; today's log is cut to 299."""
    log.rewrite(log.leaves[:299])
    assert ("log.shorter", 299) in kinds(log.verify())


def test_entries_since_yesterday_cut_off_and_signed_anew_are_beyond_any_files(log: Log) -> None:
    """The limit that the documents state: what no checkpoint outside covers can be cut off."""
    log.rewrite(log.leaves[:450])
    assert log.verify().ok


@pytest.mark.parametrize("place", [0, 150, 299])
def test_a_rewritten_entry_signed_anew_is_found(log: Log, place: int) -> None:
    forged = to_leaf(replace(from_leaf(log.leaves[place]), purpose="another purpose"))
    log.rewrite([*log.leaves[:place], forged, *log.leaves[place + 1 :]])
    assert kinds(log.verify()) == {("since.fork", None)}


def test_swapped_entries_signed_anew_are_found(log: Log) -> None:
    log.rewrite([log.leaves[1], log.leaves[0], *log.leaves[2:]])
    assert ("since.fork", None) in kinds(log.verify())


def test_an_entry_left_out_and_signed_anew_leaves_a_hole_in_the_counters(log: Log) -> None:
    log.rewrite([*log.leaves[:400], *log.leaves[401:]])
    assert kinds(log.verify()) == {("counter.gap", 400)}


def test_another_log_is_not_taken_for_this_one(log: Log, tmp_path: Path) -> None:
    other = LogWorld(memory_world(), tmp_path / "other", signer=log.made.signer)
    other.fill(other.world.ledger(), 400)
    other.sequencer().step()
    report = verify_files(tmp_path / "other", key=log.made.signer.key, since=log.yesterday)
    # The very same entries in the same order would be the same log: salts and ids make that impossible outside tests.
    assert report.ok == (leaves_of(other.world)[:300] == log.leaves[:300])
    renamed = FileSigner("other.example/audit", log.made.signer._private)
    report = verify_files(tmp_path / "other", key=renamed.key)
    assert report.counts == {"checkpoint.signature": 1}


# What the entries say of each other.


def story(*entries: AuditEntry) -> list[bytes]:
    """Number entries in one line, as a gateway does; the counters are then in order whatever else is not."""
    return [to_leaf(replace(entry, gateway="gw#1", counter=k)) for k, entry in enumerate(entries, 1)]


def told(tmp_path: Path, leaves: list[bytes]) -> set[tuple[str, int | None]]:
    signer = FileSigner(ORIGIN, Ed25519PrivateKey.generate())
    write_log(tmp_path / "log", leaves, signer)
    return kinds(verify_files(tmp_path / "log", key=signer.key))


def test_a_story_without_holes_is_in_order(tmp_path: Path) -> None:
    make = Entries()
    entries = [
        make.publish(1),
        make.publish(3),
        make.publish(2),
        make.grant(1, "aa" * 32, Action.GRANT_SUBMIT),
        make.grant(2, "bb" * 32, Action.GRANT_APPROVE),
        make.grant(3, "cc" * 32),
        make.fetch(0, 10),
        make.fetch(10, 20),
        make.fetch(5, 25, again=True),
        make.fetch(40, 50, gap="retention"),
        make.fetch(0, 9, generation=2),
        make.grant(4, "dd" * 32, Action.GRANT_SUSPEND),
        make.make(
            Action.FETCH,
            grant=make.fetch(0, 1).grant,
            decision=Decision.DENY,
            reason=Reason.GRANT_SUSPENDED,
        ),
        make.grant(5, "ee" * 32, Action.GRANT_RESUME),
        make.fetch(50, 60, version=5, digest="ee" * 32),
        make.fetch(70, 80, version=5, digest="ee" * 32, failed="database_unavailable"),
    ]
    assert told(tmp_path, story(*entries)) == set()


STORIES: list[tuple[str, Callable[[Entries], list[AuditEntry]], set[tuple[str, int | None]]]] = [
    (
        "a release left out",
        lambda make: [make.grant(3, "cc" * 32), make.fetch(0, 10), make.fetch(20, 30)],
        {("fetch.gap", 2)},
    ),
    (
        "a release left out between a grant and its renewal",
        lambda make: [
            make.grant(3, "cc" * 32),
            make.fetch(0, 10),
            replace(
                make.make(Action.GRANT_PROVISION, data={"stream": "g-1"}),
                grant=GrantRef(id="g-2", version=3, hash="dd" * 32),
            ),
            replace(make.fetch(20, 30), grant=GrantRef(id="g-2", version=3, hash="dd" * 32)),
        ],
        {("fetch.gap", 3)},
    ),
    ("a grant out of nowhere", lambda make: [make.fetch(0, 10)], {("grant.unknown", 0)}),
    (
        "a grant version out of nowhere",
        lambda make: [make.grant(2, "cc" * 32), make.fetch(0, 10)],
        {("grant.unknown", 1)},
    ),
    (
        "a grant edited in the database",
        lambda make: [make.grant(3, "cc" * 32), make.fetch(0, 10, digest="ab" * 32)],
        {("grant.hash", 1)},
    ),
    (
        "a grant version made twice",
        lambda make: [make.grant(3, "cc" * 32), make.grant(3, "ab" * 32)],
        {("grant.rewritten", 1)},
    ),
    (
        "a denied approval",
        lambda make: [
            make.grant(3, "cc" * 32, decision=Decision.DENY, reason=Reason.SAME_PERSON),
            make.fetch(0, 10),
        ],
        {("grant.unknown", 1)},
    ),
    (
        "a release after the revocation",
        lambda make: [
            make.grant(3, "cc" * 32),
            make.fetch(0, 10),
            make.grant(4, "dd" * 32, Action.GRANT_SUSPEND),
            make.fetch(10, 20),
        ],
        {("fetch.after-revocation", 3)},
    ),
    ("a batch left out", lambda make: [make.publish(1), make.publish(3)], {("publish.gap", None)}),
    ("a batch twice", lambda make: [make.publish(1), make.publish(2), make.publish(1)], {("publish.repeat", 2)}),
    ("an entry of another pool", lambda make: [make.make(), make.make(pool="elsewhere")], {("entry.pool", 1)}),
    ("a release that says nothing", lambda make: [make.make(Action.FETCH)], {("entry.form", 0)}),
]


@pytest.mark.parametrize(("entries", "expected"), [case[1:] for case in STORIES], ids=[case[0] for case in STORIES])
def test_a_story_with_a_hole_is_named(
    tmp_path: Path, entries: Callable[[Entries], list[AuditEntry]], expected: set[tuple[str, int | None]]
) -> None:
    assert told(tmp_path, story(*entries(Entries()))) == expected


def test_counters_of_each_line_are_followed(tmp_path: Path) -> None:
    make = Entries()
    line = [("a#1", 1), ("b#1", 1), ("a#1", 2), ("a#2", 1), ("a#1", 4), ("b#1", 1), ("c#1", 2)]
    leaves = [to_leaf(replace(make.make(), gateway=gateway, counter=counter)) for gateway, counter in line]
    assert told(tmp_path, leaves) == {("counter.gap", 4), ("counter.repeat", 5), ("counter.gap", 6)}


@pytest.mark.parametrize(
    "leaf",
    [b"", b"{}", b"[]", b"\xff", b'{"version":2}', b'{"version":true}', b'{"a":1, "version":1}'],
    ids=["empty", "no fields", "no object", "no text", "a later version", "no number", "not canonical"],
)
def test_a_leaf_that_is_no_entry_is_named(tmp_path: Path, leaf: bytes) -> None:
    assert told(tmp_path, [leaf]) == {("entry.form", 0)}


def test_the_program_says_what_is_wrong_and_ends_with_one(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    key, kept = log.folder / "key", log.folder / "kept"
    key.write_text(str(log.made.signer.key))
    kept.write_text(log.yesterday)
    given = ["--files", str(log.folder), "--key", str(key), "--since", str(kept)]
    assert main(given) == 0
    assert "600 of 600 entries read, nothing is wrong" in capsys.readouterr().out
    log.edit_leaves("tile/entries/000", lambda some: [*some[:9], b"{}", *some[10:]])
    assert main(given) == 1
    assert "entry.changed [9]" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main(["--files", str(log.folder), "--key", "nonsense"])
    assert caught.value.code == 2


def test_the_verifier_loads_neither_database_nor_broker() -> None:
    look = "import sys, exchange.audit.verify, exchange.audit.proof; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.split()
    assert {"sqlalchemy", "psycopg2", "grpc", "kafka", "confluent_kafka", "pyarrow", "registry"}.isdisjoint(loaded)
    assert {"schemas", "exchange", "cryptography"} <= set(loaded)
