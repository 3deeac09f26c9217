"""What concerns the whole process."""

import torch


def use_threads(count: int) -> None:
    """Let one numerical operation use ``count`` threads of the processor; for the whole process."""
    torch.set_num_threads(count)
