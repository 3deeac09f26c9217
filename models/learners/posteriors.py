"""Members that are posteriors, and the places they take: tensors are (S, M + 1, …), the challenger last."""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.types import Tensors


class ClosedForm:
    """What learners have in common whose members are posteriors, one for each forgetting time."""

    __slots__ = ()

    tau_rows: Sequence[float]

    @property
    def members(self) -> int:
        """One live member for each forgetting time."""
        return len(self.tau_rows)

    @property
    def adaptable(self) -> frozenset[str]:
        """A closed form: neither steps nor a window."""
        return frozenset()

    @property
    def keeps_challenger(self) -> bool:
        """The challenger is a posterior of its own."""
        return True

    @property
    def sequential(self) -> bool:
        """A query row is judged given the query rows before it too."""
        return True


def takers(members: int, keeps: Sequence[int], device: torch.device) -> Tensor:
    """(M,) bool: live members that an alarm moves, all but those in ``keeps``."""
    return torch.tensor([member not in keeps for member in range(members)], dtype=torch.bool, device=device)


def take_over(state: Tensors, live: Tensor, taken: Tensors, restart: Tensor, first: Tensors) -> Tensors:
    """In ``state``, live members where ``live`` (S, M) become ``taken``, challengers where ``restart`` (S,) ``first``.

    It is written into, as a copy of all covariances for every row would cost more than to learn the row.
    """
    any_live, again = bool(live.any()), restart.nonzero()[:, 0]
    for name, value in state.items():
        if any_live:
            shape = [1] * (value.dim() - 2)
            value[:, :-1] = torch.where(live.view(*live.shape, *shape), taken[name], value[:, :-1])
        value[again, -1:] = first[name].expand_as(value[:, -1:])[again]
    return state


def restart(state: Tensors, chosen: Tensor, grown: Tensors) -> Tensors:
    """In ``state``, the challengers of the chosen streams (S,) become ``grown``."""
    for name, value in state.items():
        value[chosen, -1] = grown[name][chosen, -1]
    return state


def succeed(state: Tensors, start: Tensors, place: Tensor, idle: Tensor) -> Tensors:
    """In ``state``, the challenger takes a live member's place (S,), none at -1; an idle one (S,) is ``start``'s."""
    members = next(iter(state.values())).shape[1] - 1
    live = torch.arange(members, device=place.device) == place[:, None]
    challengers = {name: value[:, -1:] for name, value in state.items()}
    return take_over(state, live, challengers, idle, {name: value[:, -1:] for name, value in start.items()})
