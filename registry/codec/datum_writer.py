"""Datum writer: encoding of single Avro datums, by functions compiled from a type tree; inverse of `datum_reader`.

A writer appends a value to a bytearray. It refuses what no reader could read back: null where the type has none, an
int beyond 32 bits, a symbol or branch that does not exist, an opaque value that is not exactly one datum.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from registry.avro.type_tree import TypeKind, TypeNode, require_terminating
from registry.codec.datum_reader import DatumError, DatumReader, ReaderCompiler, describe_range

__all__ = ["compile_writer"]

DatumWriter: TypeAlias = Callable[[bytearray, Any], None]


def compile_writer(node: TypeNode) -> Callable[[Any], bytes]:
    """Compile the writer of whole datums; it raises DatumError for a value that no reader could read.

    Raises:
        InvalidError: SCHEMA_UNSAFE, for a non-terminating type.
    """
    require_terminating(node)
    write = _WriterCompiler().writer(node)

    def whole(value: Any) -> bytes:
        out = bytearray()
        write(out, value)
        return bytes(out)

    return whole


def _write_long(out: bytearray, number: int) -> None:
    """Write a zig-zag variable-length long."""
    number = (number << 1) ^ (number >> 63)
    while number > 0x7F:
        out.append((number & 0x7F) | 0x80)
        number >>= 7
    out.append(number)


class _WriterCompiler:
    def __init__(self) -> None:
        self._readers = ReaderCompiler()  # check opaque values

    def writer(self, node: TypeNode) -> DatumWriter:  # noqa: PLR0911 - one return a kind
        match node.kind:
            case TypeKind.INT | TypeKind.LONG | TypeKind.ENUM:
                return _integer_writer(node)
            case TypeKind.FLOAT | TypeKind.DOUBLE | TypeKind.FIXED:
                return _fixed_writer(node.size or int(node.min_wire_size))
            case TypeKind.DECIMAL:
                return _decimal_writer(node)
            case TypeKind.RECORD:
                return self._record_writer(node)
            case TypeKind.ARRAY:
                return _block_writer(self.writer(node.parts[0]))
            case TypeKind.MAP:
                return _block_writer(_entry_writer(self.writer(node.parts[0])))
            case TypeKind.OPTIONAL:
                return _optional_writer(self.writer(node.parts[0]), node.null_index)
            case TypeKind.UNION:
                return _union_writer([self.writer(part) for part in node.parts])
            case TypeKind.OPAQUE:
                return self._opaque_writer(node)
            case _:
                return _SIMPLE_WRITERS[node.kind]

    def _record_writer(self, node: TypeNode) -> DatumWriter:
        self._readers.reader(node)  # an opaque reference within it looks it up
        writers = list(zip(node.names, [self.writer(part) for part in node.parts], strict=True))

        def write(out: bytearray, value: Any) -> None:
            _present(value)
            for (name, writer), each in zip(writers, value, strict=True):
                try:
                    writer(out, each)
                except DatumError as error:
                    error.path.insert(0, name)
                    raise

        return write

    def _opaque_writer(self, node: TypeNode) -> DatumWriter:
        read: DatumReader = self._readers.reader(node)

        def write(out: bytearray, value: Any) -> None:
            _present(value)
            try:
                whole = read(value, 0, 0)[1] == len(value)
            except IndexError:
                whole = False
            if not whole:
                raise DatumError("expected exactly the Avro bytes of one value")
            out += value

        return write


def _present(value: Any) -> None:
    if value is None:
        raise DatumError("expected a value, not null")


def _write_null(_out: bytearray, _value: Any) -> None:
    pass


def _write_boolean(out: bytearray, value: Any) -> None:
    _present(value)
    out.append(1 if value else 0)


def _write_bytes(out: bytearray, value: Any) -> None:
    _present(value)
    _write_long(out, len(value))
    out += value


def _write_string(out: bytearray, value: Any) -> None:
    _present(value)
    _write_bytes(out, value.encode())


_SIMPLE_WRITERS: Mapping[TypeKind, DatumWriter] = {
    TypeKind.NULL: _write_null,
    TypeKind.BOOLEAN: _write_boolean,
    TypeKind.BYTES: _write_bytes,
    TypeKind.STRING: _write_string,
}


def _integer_writer(node: TypeNode) -> DatumWriter:
    low, high = node.bounds or (-(2**63), 2**63 - 1)

    def write(out: bytearray, value: Any) -> None:
        _present(value)
        if not low <= value <= high:
            raise DatumError(f"expected {describe_range(node)}")
        _write_long(out, value)

    return write


def _fixed_writer(size: int) -> DatumWriter:
    def write(out: bytearray, value: Any) -> None:
        _present(value)
        if len(value) != size:
            raise DatumError(f"expected {size} bytes")
        out += value

    return write


def _decimal_writer(node: TypeNode) -> DatumWriter:
    limit = 10**node.precision

    def write(out: bytearray, value: Any) -> None:
        _present(value)
        if not -limit < value < limit:
            raise DatumError(f"expected a decimal of at most {node.precision} digits")
        if node.size:
            out += value.to_bytes(node.size, "big", signed=True)
        else:
            # Fewest bytes that hold the number and its sign, as Java's BigInteger.toByteArray gives.
            _write_bytes(
                out, value.to_bytes((value if value >= 0 else ~value).bit_length() // 8 + 1, "big", signed=True)
            )

    return write


def _entry_writer(write_value: DatumWriter) -> DatumWriter:
    def write(out: bytearray, entry: Any) -> None:
        key, value = entry
        _write_string(out, key)
        write_value(out, value)

    return write


def _block_writer(write_item: DatumWriter) -> DatumWriter:
    def write(out: bytearray, items: Any) -> None:
        _present(items)
        if items:
            _write_long(out, len(items))
            for item in items:
                write_item(out, item)
        out.append(0)

    return write


def _optional_writer(write_value: DatumWriter, null_index: int) -> DatumWriter:
    null, present = (0, 2) if null_index == 0 else (2, 0)

    def write(out: bytearray, value: Any) -> None:
        if value is None:
            out.append(null)
        else:
            out.append(present)
            write_value(out, value)

    return write


def _union_writer(writers: list[DatumWriter]) -> DatumWriter:
    def write(out: bytearray, value: Any) -> None:
        _present(value)
        branch, inner = value
        if not 0 <= branch < len(writers):
            raise DatumError(f"expected one of the union's {len(writers)} branches")
        _write_long(out, branch)
        writers[branch](out, inner)

    return write
