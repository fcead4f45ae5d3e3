"""Memory allocator tuning (mallopt) and garbage collection: freed memory goes back to the operating system.

glibc does not return what was freed: it has eight arenas a core, each as large as it has ever been, and once a large
buffer was freed, the next ones of its size are allocated in those arenas too, between small ones that stay. Batches of
some hundred kilobytes that thirty threads free in turn thus fragment the arenas. Here large buffers are mappings of
their own (mmap), which are returned when they are freed, and the small ones share two arenas.

Gateway and connector both do so when they start. Arrow has an allocator of its own, with heaps by thread: a process
that uses Arrow also sets its memory pool to the system's.
"""

import ctypes
import gc

__all__ = ["freeze_startup_objects", "limit_arenas"]

# Parameters of mallopt(3), from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_MMAP_SIZE = 256 * 1024  # bytes from which a buffer is a mapping of its own
_ARENAS = 2
# New objects before a collection: a batch makes thousands, none of them in a cycle. A collection stops all threads, for
# about a microsecond an object: with 20,000 it took 10 to 25 ms, and one of those that had survived ten of these, where
# thousands of calls are open, 70 to 90 ms. The oldest are collected as rarely as before.
_THRESHOLDS = (5_000, 10, 40)


def limit_arenas() -> None:
    """Configure the process's allocators, once, before threads are started. Only glibc needs it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_ARENA_MAX, _ARENAS)
    # Set explicitly, they no longer adapt to what is freed.
    mallopt(_MMAP_THRESHOLD, _MMAP_SIZE)
    mallopt(_TRIM_THRESHOLD, 2 * _MMAP_SIZE)


def freeze_startup_objects() -> None:
    """Exclude the objects made at start from garbage collection, and collect less often; once, before serving."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
