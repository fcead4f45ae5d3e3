"""Compressed sets of offsets: which positions of a range were released, as short text.

An audit entry states exactly which records of a scanned range were released. `pack_offsets` writes that as text
for its `data`, `unpack_offsets` reads it back, so that the entry alone shows whether a record was released; `meant`
tests one position without unpacking the others.

    ranges   [start, end) per partition, concatenated: one sequence of positions
    "r…"     run-length encoding: base64 of alternating lengths (out, in, out …) in LEB128: for long runs
    "z…"     bitmap: base64 of zlib over one bit a position, lowest bit of the first byte first: for scattered ones
    ""       the set is empty

The shorter of the two is taken: 16,384 positions of which a random half are in the set need some 2.8 kB.
"""

import base64
import itertools
import zlib
from collections.abc import Sequence

from schemas.errors import InvalidError, Reason
from schemas.record import Positions

__all__ = ["meant", "pack_offsets", "unpack_offsets"]

_MAX_SPAN = 1 << 27  # positions that a "z" may span when it is read: 16 MiB of bits


def pack_offsets(start: Positions, end: Positions, offsets: Sequence[Sequence[int]]) -> str:
    """Return a set of offsets within the ranges [start, end) as text.

    Args:
        start: first position of each partition's range.
        end: position after each partition's range.
        offsets: per partition, the offsets in the set, rising.

    Raises:
        InvalidError: REQUEST_INVALID, when an offset lies outside its range, or they do not rise.
    """
    if not len(start) == len(end) == len(offsets):
        raise _unpackable()
    edges = [0]  # after the 0, where runs of positions in the set begin and end, in turn
    base = 0
    for first, last, some in zip(start, end, offsets, strict=True):
        if some:
            if some[0] < first or some[-1] >= last or any(a >= b for a, b in itertools.pairwise(some)):
                raise _unpackable()
            if some[-1] - some[0] + 1 == len(some):
                _extend(edges, some[0] - first + base, some[-1] - first + base + 1)
            else:
                for offset in some:
                    _extend(edges, offset - first + base, offset - first + base + 1)
        base += last - first
    if len(edges) == 1:
        return ""
    lengths = b"".join(_leb128(b - a) for a, b in itertools.pairwise(edges))
    text = "r" + base64.b64encode(lengths).decode()
    if len(lengths) * 8 <= edges[-1]:
        return text
    return min(text, "z" + base64.b64encode(zlib.compress(_bits(edges), 9)).decode(), key=len)


def unpack_offsets(start: Positions, end: Positions, text: str) -> list[list[int]]:
    """Return the offsets that `pack_offsets` was given, per partition.

    Raises:
        InvalidError: REQUEST_INVALID, for text that `pack_offsets` does not make for these ranges.
    """
    if len(start) != len(end) or any(first > last for first, last in zip(start, end, strict=True)):
        raise _unpackable()
    span = sum(end) - sum(start)
    bases = list(itertools.accumulate((last - first for first, last in zip(start, end, strict=True)), initial=0))
    found: list[list[int]] = [[] for _ in start]
    partition = 0
    for low, high in _runs(text, span):
        at = low
        while at < high:
            while at >= bases[partition + 1]:
                partition += 1
            stop = min(high, bases[partition + 1])
            shift = start[partition] - bases[partition]
            found[partition].extend(range(at + shift, stop + shift))
            at = stop
    return found


def meant(start: Positions, end: Positions, text: str, partition: int, offset: int) -> bool:
    """Return whether one offset of a partition is in the set: a membership test of one bit.

    It reads the text up to that bit and no further, so it checks only that part of it; for text that `pack_offsets`
    made for these ranges it equals a look into `unpack_offsets`.

    Args:
        start: first position of each partition's range.
        end: position after each partition's range.
        text: the set, made for these ranges.
        partition: of the offset; one beyond the ranges is in no set.
        offset: tested; one outside its range is in no set.

    Raises:
        InvalidError: REQUEST_INVALID, for text or ranges that `pack_offsets` does not make.
    """
    if len(start) != len(end) or any(first > last for first, last in zip(start, end, strict=True)):
        raise _unpackable()
    if not text or not 0 <= partition < len(start) or not start[partition] <= offset < end[partition]:
        return False
    at = sum(end[:partition]) - sum(start[:partition]) + offset - start[partition]
    try:
        raw = base64.b64decode(text[1:], validate=True)
        if text[0] == "r":
            return _in_run(raw, at)
        if text[0] == "z" and sum(end) - sum(start) <= _MAX_SPAN:
            bits = zlib.decompressobj().decompress(raw, at // 8 + 1)
            return at // 8 < len(bits) and bool(bits[at // 8] >> at % 8 & 1)
    except (ValueError, zlib.error) as error:
        raise _unpackable() from error
    raise _unpackable()


def _in_run(raw: bytes, at: int) -> bool:
    """Return whether a position lies in a run; the lengths are out, in, out, and so on."""
    edge, number, shift, inside = 0, 0, 0, False
    for byte in raw:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte & 0x80:
            if shift > 63:
                raise _unpackable()
            continue
        edge += number
        if at < edge:
            return inside
        number, shift, inside = 0, 0, not inside
    if shift:
        raise _unpackable()
    return False


def _extend(edges: list[int], low: int, high: int) -> None:
    if edges[-1] == low and len(edges) > 1:
        edges[-1] = high
    else:
        edges += (low, high)


def _runs(text: str, span: int) -> list[tuple[int, int]]:
    """Return the runs [low, high) of positions in the set, rising and apart, all within the span."""
    if not text:
        return []
    try:
        raw = base64.b64decode(text[1:], validate=True)
        if text[0] == "r":
            edges = list(itertools.accumulate(_lengths(raw)))
        elif text[0] == "z" and span <= _MAX_SPAN:
            reader = zlib.decompressobj()
            edges = _edges(reader.decompress(raw, span // 8 + 1))
            if not reader.eof or reader.unused_data:
                raise _unpackable()
        else:
            raise _unpackable()
    except (ValueError, zlib.error) as error:
        raise _unpackable() from error
    if len(edges) % 2 or not edges or edges[-1] > span or any(a >= b for a, b in itertools.pairwise(edges)):
        raise _unpackable()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _bits(edges: list[int]) -> bytes:
    bits = 0
    for low, high in zip(edges[1::2], edges[2::2], strict=True):
        bits |= ((1 << (high - low)) - 1) << low
    return bits.to_bytes((edges[-1] + 7) // 8, "little")


def _edges(packed: bytes) -> list[int]:
    """Return where runs of set bits begin and end, in turn; bit 0 is the lowest of the first byte."""
    text = f"{int.from_bytes(packed, 'little'):b}"[::-1]
    edges: list[int] = []
    at = text.find("1")
    while at >= 0:
        stop = text.find("0", at)
        if stop < 0:
            edges += (at, len(text))
            break
        edges += (at, stop)
        at = text.find("1", stop)
    return edges


def _leb128(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _lengths(raw: bytes) -> list[int]:
    lengths, number, shift = [], 0, 0
    for byte in raw:
        number |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            lengths.append(number)
            number = shift = 0
        elif shift > 63:
            raise _unpackable()
    if shift:
        raise _unpackable()
    return lengths


def _unpackable() -> InvalidError:
    return InvalidError(
        Reason.REQUEST_INVALID,
        "got offsets that do not fit their ranges; expected, per partition, rising offsets within [start, end)",
    )
