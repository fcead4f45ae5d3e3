"""How a gateway's memory goes back to the system, so that it does not grow with what has passed.

glibc keeps what was freed: eight heaps a core, each as large as it has ever been, and once a large buffer was freed,
the next ones of its size lie in those heaps too, between small ones that stay. Batches of some hundred kilobytes that
thirty threads free in turn so leave holes that nothing fits any more. Here large buffers are the system's own mappings,
given back when they are freed, and the small ones share two heaps.
"""

import ctypes
import gc

import pyarrow as pa

__all__ = ["freeze_startup_objects", "limit_arenas"]

# Parameters of mallopt(3), from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGE = 256 * 1024  # bytes from which a buffer is a mapping of its own
_ARENAS = 2
_YOUNG = 20_000  # objects after which the collector looks at the new ones; a batch makes thousands, none in a cycle


def limit_arenas() -> None:
    """Set the process's allocators so; once, before threads are started. Other libraries than glibc need none."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_ARENA_MAX, _ARENAS)
    # Stated, they no longer follow what is freed.
    mallopt(_MMAP_THRESHOLD, _LARGE)
    mallopt(_TRIM_THRESHOLD, 2 * _LARGE)
    pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own one keeps heaps a thread


def freeze_startup_objects() -> None:
    """Take what the start has made out of the collector's sight, and let it look less often; once, before serving."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 10, 10)
