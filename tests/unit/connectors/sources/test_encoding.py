"""The ladder: byte order mark, strict UTF-8, strict GB18030 that proves itself, or a misfit with offset and line."""

import hashlib
import itertools
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.sources import encoding
from connectors.sources.encoding import assign_characters, detect_encoding

TEXTS = {
    "header only": "身份证号,姓名\n",
    "one name": "id,name\n1,王小明\n",
    "500 ASCII rows and one name": "id,name\n" + "".join(f"{n},row {n}\n" for n in range(500)) + "501,李雷\n",
    "many names": "姓名,地址\n" + "张三,浙江省杭州市拱墅区\n" * 30,
    "rare characters": "姓名\n㐂\n䶮\n𠮷野\n",
    "ASCII": "id,name\n1,Li Lei\n",
}
ENCODINGS = ("utf-8", "utf-8-sig", "gbk", "gb18030", "utf-16")


def samples() -> list[tuple[str, str]]:
    pairs = []
    for name, encoding_ in itertools.product(TEXTS, ENCODINGS):
        try:
            TEXTS[name].encode(encoding_)
        except UnicodeEncodeError:
            continue  # GBK has no 䶮
        pairs.append((name, encoding_))
    return pairs


@pytest.mark.parametrize(("name", "written"), samples())
def test_text_is_read_as_it_was_written(tmp_path: Path, name: str, written: str) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(TEXTS[name].encode(written))
    found = detect_encoding(path)
    assert found.failure is None
    assert path.read_bytes().decode(found.encoding).removeprefix("\ufeff") == TEXTS[name]
    assert found.sha256 == hashlib.sha256(path.read_bytes()).digest()


def test_utf_8_is_tried_before_gb18030(tmp_path: Path) -> None:
    """Most UTF-8 is also GB18030, and means something else there."""
    path = tmp_path / "f.csv"
    path.write_bytes("姓名,王小明一\n".encode())
    path.read_bytes().decode("gb18030", errors="strict")
    assert detect_encoding(path).encoding == "utf-8"


@pytest.mark.parametrize("tail", [b"\x81", b"\x81\x30", b"\x81\x30\x81", b"\xff"])
def test_a_file_cut_in_a_character_is_no_text(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes("a,王\n".encode("gb18030") + tail)
    found = detect_encoding(path)
    assert found.encoding == ""
    assert found.failure is not None
    assert (found.failure.offset, found.failure.line) == (5, 2)
    assert found.failure.tried == ("utf-8", "gb18030")


def test_a_mark_binds(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(b"\xef\xbb\xbfa\n" + "王".encode("gbk"))
    found = detect_encoding(path)
    assert found.encoding == ""
    assert found.failure is not None
    assert (found.failure.offset, found.failure.line) == (5, 2)


def test_a_pinned_encoding_is_the_only_one_tried(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes("a\n王\n".encode())
    assert detect_encoding(path, "gb18030").failure is not None
    path.write_bytes("a\n王\n".encode("gb18030"))
    assert detect_encoding(path, "gb18030").encoding == "gb18030"


def test_an_empty_file_is_text(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.touch()
    assert detect_encoding(path).encoding == "utf-8"


NOT_MEANT = {  # valid UTF-8 or GB18030 that nobody meant → offset of what shows it, and a word of the cause
    "Big5": ("id,name\n1,陳大文\n".encode("big5"), 12, "private use"),
    "Big5 without private use": ("id,name\n1,文\n".encode("big5"), 10, "foreign letters"),
    "UTF-8 cut within its last character": (
        "id,name\n1,张伟\n2,李娜\n3,王".encode() + b"\xe5",
        31,
        "UTF-8 that was damaged",
    ),
    "UTF-8 cut after its first byte": ("1,王".encode() + b"\xe4\xbc", 5, "UTF-8 that was damaged"),
    "UTF-8 with a wrong byte in its middle": (
        b"1,\xe6\x9d\x8e\xe5\n" + "2,王芳\n".encode() * 9,
        5,
        "UTF-8 that was damaged",
    ),
    "EUC-JP": ("山田太郎,トヨタ自動車\n".encode("euc-jp"), 9, "foreign letters"),
    "Shift-JIS": ("id,name\n1,山田太郎\n2,田中\n".encode("shift-jis"), 10, "rare characters"),
    "user-defined characters": ("姓名\n王\n".encode("gb18030") + b"\xaa\xa1\n", 8, "private use"),
    "a character that no edition has": ("姓名\n王\n".encode("gb18030") + b"\xa6\xfe\n", 8, "private use"),
    "UTF-16LE without mark": ("id,name\n1,一一\n".encode("utf-16-le"), 1, "pin `format.encoding: utf-16-le`"),
    "UTF-16BE without mark": ("编号,姓名\n1,一一\n".encode("utf-16-be"), 4, "pin `format.encoding: utf-16-be`"),
    "UTF-32": ("id,name\n1,王\n".encode("utf-32"), 0, "UTF-32"),
}


@pytest.mark.parametrize("name", NOT_MEANT)
def test_bytes_that_a_decoder_takes_and_nobody_meant_are_refused(tmp_path: Path, name: str) -> None:
    data, offset, word = NOT_MEANT[name]
    path = tmp_path / "f.csv"
    path.write_bytes(data)
    found = detect_encoding(path)
    assert found.encoding == ""
    assert found.failure is not None
    assert (found.failure.offset, found.failure.line) == (offset, data[:offset].count(b"\n") + 1)
    assert word in found.failure.cause


@pytest.mark.parametrize("name", ["Big5", "EUC-JP", "user-defined characters", "UTF-8 cut within its last character"])
def test_a_pinned_encoding_needs_no_proof(tmp_path: Path, name: str) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(NOT_MEANT[name][0])
    assert detect_encoding(path, "gb18030").encoding == "gb18030"


@pytest.mark.parametrize(
    "text",
    [
        "浙江",
        "id,name\n1,喆\n",
        "优の良品,杭州\n",
        "生于二〇一〇年\n",
        "张喆,陶堃\n",
        "姓名\n㐂\n䶮\n𠮷野\n",
        "№5,10℃,Φ20,±0.5,①,杭州市拱墅区\n",
    ],
)
def test_what_departments_write_is_meant(tmp_path: Path, text: str) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(text.encode("gb18030"))
    assert detect_encoding(path).encoding == "gb18030"


def test_text_with_single_nuls_is_no_utf_16(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(b"id,name\nab\0\0\0,x\0\0\n")
    assert detect_encoding(path).encoding == "utf-8"


REASSIGNED = {  # GB 18030-2022, table D.1; A8BC: GB 18030-2005
    "A6D9": 0xFE10, "A6DA": 0xFE12, "A6DB": 0xFE11, "A6DC": 0xFE13, "A6DD": 0xFE14, "A6DE": 0xFE15, "A6DF": 0xFE16,
    "A6EC": 0xFE17, "A6ED": 0xFE18, "A6F3": 0xFE19, "A8BC": 0x1E3F, "FE59": 0x9FB4, "FE61": 0x9FB5, "FE66": 0x9FB6,
    "FE67": 0x9FB7, "FE6D": 0x9FB8, "FE7E": 0x9FB9, "FE90": 0x9FBA, "FEA0": 0x9FBB,
}  # fmt: skip


@pytest.mark.parametrize("code", REASSIGNED)
def test_a_code_means_what_the_current_standard_says(tmp_path: Path, code: str) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes("姓名\n王".encode("gb18030") + bytes.fromhex(code) + b"\n")
    assert detect_encoding(path).encoding == "gb18030"
    assert assign_characters(bytes.fromhex(code).decode("gb18030"), "gb18030") == chr(REASSIGNED[code])
    assert assign_characters("\ue81e", "utf-8") == "\ue81e", "a department's own character in another encoding"


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    data=st.binary(max_size=60)
    | st.text("王小明文の,\n\0a", max_size=20).flatmap(
        lambda text: st.sampled_from([text.encode(each) for each in ("utf-8", "gb18030", "utf-16")])
    ),
    block=st.integers(1, 7),
)
def test_blocks_change_nothing(tmp_path: Path, data: bytes, block: int) -> None:
    """The place of the misfit, too, is what decoding the whole at once says."""
    path = tmp_path / "f.csv"
    path.write_bytes(data)
    whole = detect_encoding(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "_BLOCK", max(block, 3))
        found = detect_encoding(path)
    if not any(map(encoding._is_foreign, data.decode("gb18030", "ignore"))):  # a run may end with a block
        assert found == whole
    if whole.failure is None or whole.failure.cause:
        return
    broken = []
    for rung in encoding._candidates(data[:3]):
        with pytest.raises(UnicodeDecodeError) as failed:
            data.decode(rung.removesuffix("-sig"))
        broken.append(failed.value.start)
    assert whole.failure.offset == max(broken)
    codec = "utf-16-le" if data.startswith(b"\xff\xfe") else "utf-16-be" if data.startswith(b"\xfe\xff") else "latin-1"
    text = data.decode(codec, "replace")
    before = len(data[: max(broken)].decode(codec, "replace"))
    ends = [end.end() for end in re.finditer("\r\n|\r|\n", text)]
    assert whole.failure.line == sum(end <= before for end in ends) + 1


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text("a王\U00020000\u0a0d\n\r", max_size=30),
    written=st.sampled_from(["utf-8", "gb18030", "utf-16-le", "utf-16-be"]),
    block=st.integers(1, 4),
)
def test_a_line_that_is_too_long_is_found_in_any_blocks(tmp_path: Path, text: str, written: str, block: int) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(text.encode(written))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "_BLOCK", block)
        patch.setattr(encoding, "MAX_LINE", 8)
        found = detect_encoding(path, written)
    lengths = [len(line) for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    assert bool(found.long_line) == (max(lengths) > 8)
    if found.long_line and "\r" not in text and written in ("utf-8", "gb18030"):
        assert found.long_line == next(number for number, length in enumerate(lengths, 1) if length > 8)
