"""Signed notes and proofs, against examples of the specifications and what must be refused."""

import base64
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exchange.audit.note import FileSigner, NoteKey, checkpoint_text, open_note, parse_checkpoint, sign_note
from exchange.audit.proof import check_proof, prove
from exchange.audit.tiles import TileFiles
from schemas.audit import Checkpoint
from schemas.errors import CorruptError, InvalidError, Reason, UnavailableError
from schemas.merkle import consistency_proof, leaf_hash, verify_consistency
from schemas.status import code_of, error_of
from tests.kit.cases.audit import LogWorld, leaves_of, memory_world

# The example of golang.org/x/mod/sumdb/note, which the specification was written after.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETERS_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def test_a_note_of_another_program_is_read() -> None:
    key = NoteKey.parse(PETER)
    assert str(key) == PETER
    assert key.id.hex() == "c74f20a3"
    assert open_note(PETERS_NOTE, [key]).startswith("If you think cryptography")
    with pytest.raises(InvalidError):
        open_note(PETERS_NOTE.replace("answer", "Answer"), [key])


@pytest.fixture
def signer() -> FileSigner:
    return FileSigner("pool.example/audit", Ed25519PrivateKey.generate())


CHECKPOINT = Checkpoint(origin="pool.example/audit", size=3, root=bytes(range(32)))


def test_a_checkpoint_has_three_lines_and_its_signature(signer: FileSigner) -> None:
    note = sign_note(checkpoint_text(CHECKPOINT), [signer])
    lines = note.split("\n")
    assert lines[:4] == ["pool.example/audit", "3", base64.b64encode(bytes(range(32))).decode(), ""]
    assert lines[4].startswith("— pool.example/audit ")
    raw = base64.b64decode(lines[4].split(" ")[2])
    assert (raw[:4], len(raw)) == (signer.key.id, 68)
    assert parse_checkpoint(open_note(note, [signer.key])) == CHECKPOINT


def test_signatures_of_unknown_keys_are_skipped(signer: FileSigner) -> None:
    witness = FileSigner("witness.example", Ed25519PrivateKey.generate())
    note = sign_note(checkpoint_text(CHECKPOINT), [witness, signer])
    assert open_note(note, [signer.key]) == open_note(note, [witness.key]) == checkpoint_text(CHECKPOINT)
    with pytest.raises(InvalidError):
        open_note(note, [FileSigner("pool.example/audit", Ed25519PrivateKey.generate()).key])


def test_a_wrong_signature_of_a_known_key_spoils_the_note(signer: FileSigner) -> None:
    other = FileSigner("witness.example", Ed25519PrivateKey.generate())
    note = sign_note(checkpoint_text(CHECKPOINT), [signer])
    bad = sign_note("something else\n", [other]).split("\n\n")[1]
    with pytest.raises(InvalidError) as caught:
        open_note(note + bad, [signer.key, other.key])
    assert caught.value.reason is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize(
    "mangle",
    [
        lambda _: "",
        lambda note: note.split("\n\n")[0] + "\n",
        lambda note: note[:-1],
        lambda note: note + "\n",
        lambda note: note.replace("— ", "- "),
        lambda note: note.replace("\n3\n", "\n3\r\n"),
        lambda note: note + "— x !!!\n",
        lambda note: note + "— x AAAA\n",
        lambda note: note + "— pool.example/audit\n",
        lambda note: note + "— spam AAAAAAAA\n" * 200,
    ],
    ids=range(10),
)
def test_what_is_no_note_is_refused(signer: FileSigner, mangle: object) -> None:
    note = sign_note(checkpoint_text(CHECKPOINT), [signer])
    assert callable(mangle)
    with pytest.raises(InvalidError):
        open_note(mangle(note), [signer.key])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "origin\n",
        "origin\n3\n",
        "origin\n03\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "origin\n-3\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "origin\n٣\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "\n3\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "origin\n3\nAAEC\n",
        "origin\n3\nnot base64\n",
        "origin\n3\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "origin\n3\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n\nx\n",
        "origin\n" + "9" * 5000 + "\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_checkpoint(text)


def test_extension_lines_are_skipped() -> None:
    assert parse_checkpoint(checkpoint_text(CHECKPOINT) + "extension\n") == CHECKPOINT


@pytest.mark.parametrize(
    "text", ["", "a+b", "name+00000000+AAAA", PETER.replace("c74f", "c74e"), PETER.replace("+AR", "+BB"), "x" * 50]
)
def test_what_is_no_verification_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        NoteKey.parse(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b"])
def test_a_key_name_has_neither_spaces_nor_a_plus(name: str) -> None:
    with pytest.raises(InvalidError):
        NoteKey(name, bytes(32))


def test_text_that_is_not_lines_is_not_signed(signer: FileSigner) -> None:
    for text in ("no newline", "bell\a\n"):
        with pytest.raises(InvalidError):
            sign_note(text, [signer])


def test_a_key_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    made = FileSigner.create(path, "pool.example/audit")
    assert path.stat().st_mode & 0o777 == 0o600
    assert FileSigner.load(path, "pool.example/audit").key == made.key
    with pytest.raises(InvalidError):
        FileSigner.create(path, "pool.example/audit")
    path.chmod(0o640)
    with pytest.raises(InvalidError):
        FileSigner.load(path, "pool.example/audit")


def test_another_key_than_ed25519_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    pem = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(descriptor, pem)
    os.close(descriptor)
    with pytest.raises(InvalidError):
        FileSigner.load(path, "x")
    with pytest.raises(InvalidError):
        FileSigner.load(tmp_path / "none", "x")


@pytest.fixture
def log(tmp_path: Path) -> LogWorld:
    log = LogWorld(memory_world(), tmp_path / "log")
    log.fill(log.world.ledger(), 300)
    log.sequencer().step()
    return log


@pytest.mark.parametrize("index", [0, 255, 256, 299])
def test_a_proof_file_stands_alone(log: LogWorld, index: int) -> None:
    text = prove(log.folder, index)
    assert text.startswith("c2sp.org/tlog-proof@v1\nextra ")
    assert text.endswith(log.note())
    proven = check_proof(text, [log.signer.key])
    assert (proven.index, proven.leaf, proven.checkpoint.size) == (index, leaves_of(log.world)[index], 300)


@pytest.mark.parametrize("index", [0, 255, 256, 299])
def test_a_proof_by_hash_holds_no_byte_of_the_entry(log: LogWorld, index: int) -> None:
    text, leaf = prove(log.folder, index, by_hash=True), leaves_of(log.world)[index]
    proven = check_proof(text, [log.signer.key])
    assert (proven.index, proven.leaf, proven.leaf_hash) == (index, None, leaf_hash(leaf))
    assert base64.b64encode(leaf).decode() not in text
    for other in (leaf_hash(leaf + b" "), b"", leaf_hash(leaf)[:31]):
        changed = text.replace(base64.b64encode(proven.leaf_hash).decode(), base64.b64encode(other).decode())
        with pytest.raises(InvalidError):
            check_proof(changed, [log.signer.key])


def test_a_changed_proof_file_proves_nothing(log: LogWorld) -> None:
    text = prove(log.folder, 7)
    lines = text.split("\n")
    other = base64.b64encode(leaves_of(log.world)[8]).decode()
    wrong = [
        text.replace("index 7", "index 8"),
        text.replace("index 7", "index 07"),
        text.replace(lines[1], f"extra {other}"),
        text.replace(lines[3] + "\n", ""),
        text.replace(lines[1] + "\n", ""),
        text.replace(lines[3], lines[4]),
        text.replace(lines[3], "!"),
        text.replace("\n300\n", "\n301\n"),
        text.replace("@v1", "@v2"),
        "",
    ]
    for one in wrong:
        assert one != text
        with pytest.raises(InvalidError):
            check_proof(one, [log.signer.key])


def test_what_is_not_in_the_log_is_not_proved(log: LogWorld, tmp_path: Path) -> None:
    for folder, index in ((log.folder, 300), (tmp_path / "nothing", 0)):
        with pytest.raises(UnavailableError) as caught:
            prove(folder, index)
        assert caught.value.reason is Reason.LOG_BEHIND
        assert error_of(code_of(caught.value), caught.value.reason, "", {}).__class__ is UnavailableError
    (log.folder / "tile/0/000").unlink()
    with pytest.raises(CorruptError):
        prove(log.folder, 3)


def test_a_touched_log_gives_no_proof(log: LogWorld) -> None:
    path = log.folder / "tile/0/000"
    path.write_bytes(path.read_bytes()[32:64] + path.read_bytes()[32:])
    with pytest.raises(CorruptError):
        prove(log.folder, 1)


def test_one_checkpoint_is_proved_a_prefix_of_another(log: LogWorld) -> None:
    old = parse_checkpoint(open_note(log.note(), [log.signer.key]))
    log.fill(log.world.ledger(), 400)
    log.sequencer().step()
    new = parse_checkpoint(open_note(log.note(), [log.signer.key]))
    proof = consistency_proof(old.size, new.size, TileFiles(log.folder).subtree(new.size))
    assert verify_consistency(proof, old.root, new.root)
    assert not verify_consistency(proof, new.root, old.root)
