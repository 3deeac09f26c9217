"""How the process keeps the memory that it has freed."""

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""What glibc's ``mallopt`` calls its parameters."""
KEPT_BYTES = 2**28


def keep_freed_memory() -> None:
    """Let the process reuse the memory of large tensors, up to 256 MB, instead of giving it back to the kernel.

    glibc returns large blocks at once; a tensor of the same size then costs page faults, many times its arithmetic.
    What it keeps for each thread apart is returned in any case: all threads are to share one arena, which it heeds only
    if it is told before a library has begun a thread. Other C libraries are left as they are.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(M_ARENA_MAX, 1)
