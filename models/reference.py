"""What a suspicion is tested against: the live members as they were believed when it began.

While a suspicion lasts, a committee that learns moves its weight to the members that forget fastest. They follow a
change nearly as fast as the challenger does, and its lead over the committee ends before it is convincing. So the test
weighs the members by what they were worth before the first row in doubt, moved by Bayes' rule alone: without the fixed
share that lets the committee change its mind, and sharpened, because a weight that the share has lent is no belief.

A stream's state holds ``reference`` (S, M), log weights of the live members for the next batch.
"""

import torch
from torch import Tensor

SHARPNESS = 8.0
"""Power that weights are raised to: the best member counts, and those that are nearly as good."""


def init_reference(weights: Tensor, torn: Tensor | None = None) -> Tensor:
    """Log weights (S, M) where nothing is suspected, from the committee's.

    Where members go on from different regimes and the rows have not decided yet, ``torn`` (S,), weights count as they
    are: the side that is behind now may be right, and that it was is no change.
    """
    power = SHARPNESS if torn is None else torch.where(torn, 1.0, SHARPNESS)[:, None]
    return torch.log_softmax(power * weights, dim=1)


def log_likelihood(reference: Tensor, likely: Tensor) -> Tensor:
    """(S,) of a batch whose log-likelihood under each live member is ``likely`` (S, M)."""
    return torch.logsumexp(reference + likely, dim=1)


def advance(
    reference: Tensor, likely: Tensor, weights: Tensor, idle: Tensor, rows: Tensor, torn: Tensor | None = None
) -> Tensor:
    """The reference for the next batch.

    Args:
        reference: (S, M) before the batch.
        likely: (S, M) log-likelihood of the batch under the live members.
        weights: (S, M) the committee's log weights after it.
        idle: (S,) bool, nothing is suspected after it.
        rows: (S,) rows of the batch; a stream without keeps its own.
        torn: (S,) bool, members go on from different regimes.
    """
    believed = torch.log_softmax(reference + likely, dim=1)
    moved = torch.where(idle[:, None], init_reference(weights, torn), believed)
    return torch.where(rows[:, None] > 0, moved, reference)
