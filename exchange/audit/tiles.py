"""Tile files of the log, laid out by C2SP tlog-tiles, so that any tiled-log client reads it.

    DIR/log/checkpoint                     the signed checkpoint
    DIR/log/tile/0/x001/234/067            256 leaf hashes; .p/<W> behind it while there are fewer
    DIR/log/tile/1/…                       256 roots of full tiles of the level below
    DIR/log/tile/entries/…                 256 leaves, each after its length in two bytes, big-endian

Tiles follow from the leaves alone: written twice they are the same bytes, so that a sequencer may repeat after a
crash what another one did. Files are written atomically (to a temporary file, flushed, renamed). A partial tile is
removed only once the full one is there.

Hashes and checkpoint may be read by everybody on the machine (0644); entries by the pool's user and its group (0640).
"""

import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

from schemas.audit import MAX_LEAF_BYTES
from schemas.errors import CorruptError, InvalidError, Reason, UnavailableError
from schemas.merkle import EMPTY_ROOT, HASH_SIZE, Subtree, root_of, subtree_over

__all__ = ["ENTRIES", "WIDTH", "Edge", "TileFiles", "decode_bundle", "encode_bundle", "tile_path", "tile_width"]

WIDTH = 256  # hashes of a full tile: 8 levels of the tree
ENTRIES = "entries"
_HEIGHT = 8
_PUBLIC_MODE = 0o644
_ENTRIES_MODE = 0o640
_ENTRIES_FOLDER = 0o750


def tile_path(level: int | str, number: int, width: int = WIDTH) -> str:
    """Return a tile's path below the log's folder; *level* is a number or `ENTRIES` (tlog-tiles, Merkle Tree)."""
    parts = [f"{number % 1000:03d}"]
    while number >= 1000:
        number //= 1000
        parts.append(f"x{number % 1000:03d}")
    partial = "" if width == WIDTH else f".p/{width}"
    return f"tile/{level}/{'/'.join(reversed(parts))}{partial}"


def tile_width(level: int, number: int, size: int) -> int:
    """Return how many hashes tile *number* of *level* holds in a tree of *size* leaves: 0 to 256."""
    return max(0, min(WIDTH, (size >> _HEIGHT * level) - number * WIDTH))


def encode_bundle(leaves: list[bytes]) -> bytes:
    """Return an entry bundle: each leaf after its length in two bytes."""
    return b"".join(struct.pack(">H", len(leaf)) + leaf for leaf in leaves)


def decode_bundle(bundle: bytes) -> list[bytes]:
    """Return the leaves of an entry bundle.

    Raises:
        CorruptError: LOG_CORRUPT, it ends within an entry.
    """
    leaves: list[bytes] = []
    at, end = 0, len(bundle)
    while at < end:
        stop = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
        if stop > end or at + 2 > end:
            raise CorruptError(Reason.LOG_CORRUPT, f"an entry bundle ends within its entry number {len(leaves)}")
        leaves.append(bundle[at + 2 : stop])
        at = stop
    return leaves


class Edge:
    """The growing edge of the log: the hashes and leaves that no full tile holds yet, and the root over all.

    `levels[0]` are leaf hashes, `levels[l]` roots of full tiles of the level below; each shorter than 256.
    """

    def __init__(self) -> None:
        self.size = 0
        self.levels: list[list[bytes]] = [[]]
        self.leaves: list[bytes] = []

    def append(self, leaf: bytes, leaf_hash: bytes) -> list[tuple[str, bytes]]:
        """Add one leaf; return the path and content of each tile that it has filled."""
        if len(leaf) > MAX_LEAF_BYTES:
            raise CorruptError(Reason.LEAF_MISMATCH, f"leaf {self.size} is {len(leaf)} bytes long; 65,535 fit a bundle")
        self.leaves.append(leaf)
        self.levels[0].append(leaf_hash)
        self.size += 1
        filled = []
        if len(self.leaves) == WIDTH:
            filled.append((tile_path(ENTRIES, self.size // WIDTH - 1), encode_bundle(self.leaves)))
            self.leaves = []
        for level in range(len(self.levels)):
            hashes = self.levels[level]
            if len(hashes) < WIDTH:
                break
            filled.append((tile_path(level, (self.size >> _HEIGHT * (level + 1)) - 1), b"".join(hashes)))
            if level + 1 == len(self.levels):
                self.levels.append([])
            self.levels[level + 1].append(root_of(hashes))
            self.levels[level] = []
        return filled

    def partials(self) -> list[tuple[str, bytes]]:
        """Return the path and content of each partial tile that a checkpoint of this size needs."""
        tiles = []
        for level, hashes in enumerate(self.levels):
            if hashes:
                number = self.size >> _HEIGHT * (level + 1)
                tiles.append((tile_path(level, number, len(hashes)), b"".join(hashes)))
        if self.leaves:
            tiles.append((tile_path(ENTRIES, self.size // WIDTH, len(self.leaves)), encode_bundle(self.leaves)))
        return tiles

    def root(self) -> bytes:
        """Return the root over all leaves so far."""
        below: list[bytes] = []
        for hashes in self.levels:
            if hashes or below:
                below = [root_of(hashes + below)]
        return below[0] if below else EMPTY_ROOT


class TileFiles:
    """The log's folder. Reading returns None for a file that is missing; writing is durable when it returns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, path: str, content: bytes) -> None:
        """Write a file atomically, unless it is there with this content.

        Raises:
            UnavailableError: DISK_FULL, the file system refuses; nothing half-written is visible.
        """
        target = self.folder / path
        if self.read(path) == content:
            return
        try:
            if not target.parent.is_dir():
                self._create_folder(target.parent, _is_entries(path))
            temporary = target.with_name(f".{target.name}.{os.getpid()}")
            mode = _ENTRIES_MODE if _is_entries(path) else _PUBLIC_MODE
            temporary.unlink(missing_ok=True)
            temporary.touch(mode=mode & 0o600)  # closed to others before there is anything in it
            with temporary.open("wb") as file:
                os.fchmod(file.fileno(), mode)  # whatever the process's umask
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
            _sync_folder(target.parent)
        except OSError as error:
            raise UnavailableError(
                Reason.DISK_FULL, f"the log's folder {self.folder} takes no file ({error.strerror}); nothing is signed"
            ) from error

    def restrict_entries(self) -> None:
        """Take the entries of an existing folder away from other users of the machine; at start.

        Raises:
            InvalidError: CONFIG_INVALID, the folder is another user's.
        """
        top = self.folder / "tile" / ENTRIES
        try:
            if not top.is_dir():
                return
            top.chmod(_ENTRIES_FOLDER)  # before what is below: from here on nobody else gets in
            for below in top.rglob("*"):
                below.chmod(_ENTRIES_FOLDER if below.is_dir() else _ENTRIES_MODE)
        except OSError as error:
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{top} cannot be closed to other users ({error.strerror}); run the pool as the user who owns it",
            ) from error

    def read(self, path: str) -> bytes | None:
        """Return a file's content."""
        try:
            return (self.folder / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def tile(self, level: int | str, number: int, width: int) -> bytes | None:
        """Return the first *width* hashes of a tile, or leaves of a bundle; from the full tile where there is one."""
        full = self.read(tile_path(level, number))
        if full is None:
            return None if width == WIDTH else self.read(tile_path(level, number, width))
        if width == WIDTH:
            return full
        if level == ENTRIES:
            return encode_bundle(decode_bundle(full)[:width])
        return full[: width * HASH_SIZE]

    def drop_partials(self, path: str) -> None:
        """Remove the partial tiles of a tile that is there in full."""
        shutil.rmtree(self.folder / f"{path}.p", ignore_errors=True)

    def edge(self, size: int) -> Edge | None:
        """Load the edge of the tree of *size* leaves; None when a tile of it is missing or of another length."""
        edge = Edge()
        edge.size = size
        edge.levels = []
        level = 0
        while size >> _HEIGHT * level or level == 0:
            number, width = divmod(size >> _HEIGHT * level, WIDTH)
            content = self.tile(level, number, width) if width else b""
            if content is None or len(content) != width * HASH_SIZE:
                return None
            edge.levels.append([content[at : at + HASH_SIZE] for at in range(0, len(content), HASH_SIZE)])
            level += 1
        number, width = divmod(size, WIDTH)
        try:
            edge.leaves = decode_bundle(self.tile(ENTRIES, number, width) or b"") if width else []
        except CorruptError:
            return None
        return edge if len(edge.leaves) == width else None

    def missing(self, size: int) -> str | None:
        """Return the path of a full tile or bundle that a tree of *size* leaves has, and the folder lacks."""
        return next((path for path in _full_tiles(size) if not (self.folder / path).is_file()), None)

    def subtree(self, size: int) -> Subtree:
        """Return the subtrees of the tree of *size* leaves, for proofs.

        They raise CorruptError (LOG_CORRUPT) where a tile is missing.
        """

        def node(height: int, index: int) -> bytes:
            level, below = divmod(height, _HEIGHT)
            first = index << below
            number = first // WIDTH
            width = tile_width(level, number, size)
            content = self.tile(level, number, width)
            if content is None or len(content) != width * HASH_SIZE:
                raise CorruptError(
                    Reason.LOG_CORRUPT, f"the tile {tile_path(level, number, width)} is missing or of another length"
                )
            at = first % WIDTH * HASH_SIZE
            end = at + (HASH_SIZE << below)
            return root_of([content[k : k + HASH_SIZE] for k in range(at, end, HASH_SIZE)])

        return subtree_over(node)

    def root(self, size: int, within: int) -> bytes:
        """Return the root over the first *size* leaves, from the tiles of the tree of *within* leaves.

        Raises:
            CorruptError: LOG_CORRUPT, a tile is missing.
        """
        return self.subtree(within)(0, size) if size else EMPTY_ROOT

    def leaf(self, index: int, size: int) -> bytes:
        """Return one leaf of the tree of *size* leaves.

        Raises:
            CorruptError: LOG_CORRUPT, its bundle is missing or too short.
        """
        number, at = divmod(index, WIDTH)
        width = tile_width(0, number, size)
        bundle = self.tile(ENTRIES, number, width)
        leaves = [] if bundle is None else decode_bundle(bundle)
        if at >= len(leaves):
            raise CorruptError(
                Reason.LOG_CORRUPT, f"the bundle {tile_path(ENTRIES, number, width)} is missing or lacks entry {index}"
            )
        return leaves[at]

    def _create_folder(self, folder: Path, is_entries: bool) -> None:
        above = folder.parent
        if not above.is_dir():
            self._create_folder(above, is_entries)
        folder.mkdir(exist_ok=True)
        if is_entries and ENTRIES in folder.relative_to(self.folder.parent).parts:
            folder.chmod(_ENTRIES_FOLDER)
        _sync_folder(above)


def _is_entries(path: str) -> bool:
    return path.startswith(f"tile/{ENTRIES}/")


def _full_tiles(size: int) -> Iterator[str]:
    for number in range(size // WIDTH):
        yield tile_path(ENTRIES, number)
    level = 0
    while count := size >> _HEIGHT * (level + 1):
        for number in range(count):
            yield tile_path(level, number)
        level += 1


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
