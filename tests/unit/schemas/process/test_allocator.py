"""Allocator: a process of many threads keeps two heaps, however many of them free large buffers."""

import subprocess
import sys

import pytest

_THREADS = """
import ctypes, os, re, sys, tempfile, threading
from schemas.process import allocator

if sys.argv[1] == "limited":
    allocator.limit_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.fopen.restype = ctypes.c_void_p
barrier = threading.Barrier(8)

def take():
    barrier.wait()
    taken = [libc.malloc(50_000) for _ in range(20)]
    barrier.wait()
    return taken

threads = [threading.Thread(target=take) for _ in range(8)]
[each.start() for each in threads]
[each.join() for each in threads]
with tempfile.TemporaryDirectory() as folder:
    file = libc.fopen(os.path.join(folder, "heaps").encode(), b"w")
    libc.malloc_info(0, ctypes.c_void_p(file))
    libc.fclose(ctypes.c_void_p(file))
    print(len(re.findall("<heap nr", open(os.path.join(folder, "heaps")).read())))
"""


def heaps(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", _THREADS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc has arenas")
def test_threads_share_two_heaps() -> None:
    assert heaps("as it comes") > 2, "this machine has no more heaps anyway: the test shows nothing"
    assert heaps("limited") <= 2
