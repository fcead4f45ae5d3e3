"""Writing single Avro datums, by functions compiled from a shape; the inverse of `registry.codec.datum_reader`.

A writer appends a value to a bytearray. It refuses what no reader could read back: null where the type has none, an
int beyond 32 bits, a symbol or branch that does not exist, an opaque value that is not exactly one datum.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from registry.avro.type_tree import Kind, Shape, refuse_endless
from registry.codec.datum_reader import FlawError, Reader, RecordReaders, range_of

__all__ = ["Writer", "writer_of"]

Writer: TypeAlias = Callable[[bytearray, Any], None]


def writer_of(shape: Shape) -> Callable[[Any], bytes]:
    """Compile the writer of whole datums; it raises FlawError for a value that no reader could read.

    Raises:
        InvalidError: SCHEMA_UNSAFE, for a shape of which some value never ends.
    """
    refuse_endless(shape)
    write = _RecordWriters().writer(shape)

    def whole(value: Any) -> bytes:
        out = bytearray()
        write(out, value)
        return bytes(out)

    return whole


def write_long(out: bytearray, number: int) -> None:
    """Write a zig-zag variable-length long."""
    number = (number << 1) ^ (number >> 63)
    while number > 0x7F:
        out.append((number & 0x7F) | 0x80)
        number >>= 7
    out.append(number)


class _RecordWriters:
    def __init__(self) -> None:
        self._readers = RecordReaders()  # what an opaque value is checked by

    def writer(self, shape: Shape) -> Writer:  # noqa: PLR0911 - one way out a kind
        match shape.kind:
            case Kind.INT | Kind.LONG | Kind.ENUM:
                return _integer_writer(shape)
            case Kind.FLOAT | Kind.DOUBLE | Kind.FIXED:
                return _fixed_writer(shape.size or int(shape.least))
            case Kind.DECIMAL:
                return _decimal_writer(shape)
            case Kind.RECORD:
                return self._record_writer(shape)
            case Kind.ARRAY:
                return _block_writer(self.writer(shape.parts[0]))
            case Kind.MAP:
                return _block_writer(_entry_writer(self.writer(shape.parts[0])))
            case Kind.OPTIONAL:
                return _optional_writer(self.writer(shape.parts[0]), shape.null_index)
            case Kind.UNION:
                return _union_writer([self.writer(part) for part in shape.parts])
            case Kind.OPAQUE:
                return self._opaque_writer(shape)
            case _:
                return _SIMPLE_WRITERS[shape.kind]

    def _record_writer(self, shape: Shape) -> Writer:
        self._readers.reader(shape)  # so that an opaque reference within it finds it
        writers = list(zip(shape.names, [self.writer(part) for part in shape.parts], strict=True))

        def write(out: bytearray, value: Any) -> None:
            _present(value)
            for (name, writer), each in zip(writers, value, strict=True):
                try:
                    writer(out, each)
                except FlawError as flaw:
                    flaw.path.insert(0, name)
                    raise

        return write

    def _opaque_writer(self, shape: Shape) -> Writer:
        read: Reader = self._readers.reader(shape)

        def write(out: bytearray, value: Any) -> None:
            _present(value)
            try:
                whole = read(value, 0, 0)[1] == len(value)
            except IndexError:
                whole = False
            if not whole:
                raise FlawError("expected exactly the Avro bytes of one value")
            out += value

        return write


def _present(value: Any) -> None:
    if value is None:
        raise FlawError("expected a value, not null")


def _write_null(_out: bytearray, _value: Any) -> None:
    pass


def _write_boolean(out: bytearray, value: Any) -> None:
    _present(value)
    out.append(1 if value else 0)


def _write_bytes(out: bytearray, value: Any) -> None:
    _present(value)
    write_long(out, len(value))
    out += value


def _write_string(out: bytearray, value: Any) -> None:
    _present(value)
    _write_bytes(out, value.encode())


_SIMPLE_WRITERS: Mapping[Kind, Writer] = {
    Kind.NULL: _write_null,
    Kind.BOOLEAN: _write_boolean,
    Kind.BYTES: _write_bytes,
    Kind.STRING: _write_string,
}


def _integer_writer(shape: Shape) -> Writer:
    low, high = shape.bounds or (-(2**63), 2**63 - 1)

    def write(out: bytearray, value: Any) -> None:
        _present(value)
        if not low <= value <= high:
            raise FlawError(f"expected {range_of(shape)}")
        write_long(out, value)

    return write


def _fixed_writer(size: int) -> Writer:
    def write(out: bytearray, value: Any) -> None:
        _present(value)
        if len(value) != size:
            raise FlawError(f"expected {size} bytes")
        out += value

    return write


def _decimal_writer(shape: Shape) -> Writer:
    limit = 10**shape.precision

    def write(out: bytearray, value: Any) -> None:
        _present(value)
        if not -limit < value < limit:
            raise FlawError(f"expected a decimal of at most {shape.precision} digits")
        if shape.size:
            out += value.to_bytes(shape.size, "big", signed=True)
        else:
            # Fewest bytes that hold the number and its sign, as Java's BigInteger.toByteArray gives.
            _write_bytes(
                out, value.to_bytes((value if value >= 0 else ~value).bit_length() // 8 + 1, "big", signed=True)
            )

    return write


def _entry_writer(write_value: Writer) -> Writer:
    def write(out: bytearray, entry: Any) -> None:
        key, value = entry
        _write_string(out, key)
        write_value(out, value)

    return write


def _block_writer(write_item: Writer) -> Writer:
    def write(out: bytearray, items: Any) -> None:
        _present(items)
        if items:
            write_long(out, len(items))
            for item in items:
                write_item(out, item)
        out.append(0)

    return write


def _optional_writer(write_value: Writer, null_index: int) -> Writer:
    null, present = (0, 2) if null_index == 0 else (2, 0)

    def write(out: bytearray, value: Any) -> None:
        if value is None:
            out.append(null)
        else:
            out.append(present)
            write_value(out, value)

    return write


def _union_writer(writers: list[Writer]) -> Writer:
    def write(out: bytearray, value: Any) -> None:
        _present(value)
        branch, inner = value
        if not 0 <= branch < len(writers):
            raise FlawError(f"expected one of the union's {len(writers)} branches")
        write_long(out, branch)
        writers[branch](out, inner)

    return write
