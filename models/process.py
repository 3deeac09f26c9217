"""What concerns the whole process: threads and memory."""

import ctypes
from contextlib import suppress

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""What glibc's ``mallopt`` calls its parameters."""
KEPT_BYTES = 2**28


def use_threads(count: int) -> None:
    """Let one numerical operation use ``count`` threads of the processor; for the whole process."""
    torch.set_num_threads(count)


def keep_freed_memory() -> None:
    """Let the process reuse the memory of large tensors, up to 256 MB, instead of giving it back to the kernel.

    glibc returns large blocks at once; a tensor of the same size then costs page faults, many times its arithmetic.
    Other C libraries are left as they are.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
