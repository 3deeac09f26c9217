"""Regimes that a stream has left, as posteriors of a Bayesian linear head, and what the rows of a new one say for each.

The inverse covariance of a posterior is the prior's plus what its rows add, Σ φφᵀ, and so is its inverse covariance
times its mean, with Σ φyᵀ. So rows can be taken out of a posterior or added to another one without the rows
themselves, and how well a remembered posterior explains the rows of a young regime, against the prior, has a closed
form in the posterior that has learned them from the prior.

Nothing is decided at an alarm. The fastest member that an alarm moves always goes on from the prior. Where the rows
hint at a remembered regime the slowest one takes its posterior and the rows, where they are clear all others do; where
they speak against it they return to the fastest one's. The weights of the committee arbitrate meanwhile. That is
looked at again when a regime has 1, 2, 4, … rows, up to ``WATCH_ROWS``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from models.kalman import Posterior
from models.types import Tensors

ROWS_MIN = 30
"""A regime of fewer rows is not remembered."""
WATCH_ROWS = 32
"""A regime with more rows goes on as what it is."""
HINT_NATS, CLEAR_NATS, WRONG_NATS = 0.5, 3.0, -1.0
"""Evidence for a remembered regime, against the prior, from which one member believes it, all do, none does."""
FADE = 0.001
"""How far what was remembered has reverted to the prior when it is recalled: no regime returns to the last digit."""
JITTER = 1e-6
"""Added to a covariance before it is inverted, relative to its mean variance."""
TRUST_NATS = (1.0, 2.0)
"""By how much the weight of one believer, or of all, is raised at an alarm: the other side stays worth some nats."""
NONE, ALL = -1, 2
KEPT = ("past_L", "past_h", "past_used", "segment_rows", "recalled", "believers")
"""What an archive keeps of a stream."""


class Natural(NamedTuple):
    """A posterior by its inverse covariance, L (…, d, d), and that times its mean, h (…, d, O); float64."""

    L: Tensor
    h: Tensor

    @classmethod
    def of(cls, W: Tensor, P: Tensor) -> "Natural":
        """Of W (…, d, O) and P (…, d, d)."""
        P = P.double()
        eye = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
        ridge = JITTER * P.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        L = torch.linalg.inv_ex(0.5 * (P + P.mT) + ridge * eye).inverse  # what is not finite is found by the step
        return cls(L, L @ W.double())

    def posterior(self) -> Posterior:
        """W and P."""
        P = torch.linalg.inv_ex(self.L).inverse
        return Posterior(P @ self.h, P)

    def volume_and_fit(self) -> tuple[Tensor, Tensor]:
        """½ log|L| (…) and hᵀL⁻¹h of each output (…, O); NaN where L is not positive definite."""
        factor, failed = torch.linalg.cholesky_ex(self.L)
        half = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        fit = torch.linalg.solve_triangular(factor, self.h, upper=False).square().sum(-2)
        return torch.where(failed == 0, half, torch.nan), fit


def lead(past: Natural, prior: Natural, grown: Natural, noise: Tensor) -> Tensor:
    """Nats (n, K) by which the rows that ``grown`` has learned from ``prior`` speak for ``past`` instead.

    Args:
        past: (n, K, …) remembered posteriors.
        prior: The prior, without leading axes.
        grown: (n, …) the prior and the rows.
        noise: (n, O) variance of the labels' noise.

    Returns:
        -inf where a matrix was not positive definite.
    """
    after = Natural(past.L + (grown.L - prior.L)[:, None], past.h + (grown.h - prior.h)[:, None])
    volumes, fits = zip(*(one.volume_and_fit() for one in (past, after, prior, grown)), strict=True)
    volume = volumes[0] - volumes[1] - volumes[2] + volumes[3][:, None]
    fit = fits[0] - fits[1] - fits[2] + fits[3][:, None]
    nats = past.h.shape[-1] * volume - 0.5 * (fit / noise[:, None]).sum(-1)
    return torch.where(nats.isnan(), -torch.inf, nats)


@dataclass(frozen=True, slots=True)
class Archive:
    """Remembers regimes and moves ``W`` and ``P`` of live members to those that return.

    Of a stream it keeps ``past_L`` (S, K, d, d) and ``past_h`` (S, K, d, O), the segments; ``past_used`` (S, K), the
    order in which they were used last, 0 where there is none; ``segment_rows`` (S,), rows since the last alarm;
    ``recalled`` (S,), the segment that the regime goes on from, -1 for none; ``believers`` (S,), 0, 1 for the slowest
    member, 2 for all but the fastest.

    Args:
        segments: K, most segments of a stream.
        members: Live members that an alarm moves, the one that always goes on from the prior first; two or more.
    """

    segments: int
    members: Sequence[int]

    def init(self, prior: Posterior, streams: int) -> Tensors:
        """Nothing remembered."""
        axes = (streams, self.segments)
        return {
            "past_L": torch.zeros_like(prior.P).expand(*axes, -1, -1).clone(),
            "past_h": torch.zeros_like(prior.W).expand(*axes, -1, -1).clone(),
            "past_used": torch.zeros(axes, dtype=torch.int64, device=prior.W.device),
            "segment_rows": torch.zeros(streams, dtype=torch.int64, device=prior.W.device),
            "recalled": torch.full((streams,), NONE, device=prior.W.device),
            "believers": torch.zeros(streams, dtype=torch.int64, device=prior.W.device),
        }

    def close(self, state: Tensors, prior: Posterior, alarm: Tensor, noise: Tensor) -> Tensors:
        """Where alarmed, remember the slowest member's posterior, less the rows that the challenger has learned.

        It takes the place of the segment it went on from, of one that is the same regime, or of the one whose last
        use is the longest ago.

        Args:
            state: Before the alarm has its effect.
            prior: The prior.
            alarm: (S,) bool.
            noise: (S, O) variance of the labels' noise.

        Returns:
            What the archive keeps.
        """
        new = {name: state[name] for name in KEPT}
        who = torch.nonzero(alarm & (state["segment_rows"] >= ROWS_MIN))[:, 0]
        if len(who):
            first, at = Natural.of(*prior), self.members[-1]
            live = Natural.of(state["W"][who, at], state["P"][who, at])
            doubted = Natural.of(state["W"][who, -1], state["P"][who, -1])
            clean = Natural(live.L - (doubted.L - first.L), live.h - (doubted.h - first.h))
            usable = (torch.linalg.cholesky_ex(clean.L).info == 0)[:, None, None]
            W, P = Natural(*(torch.where(usable, *pair) for pair in zip(clean, live, strict=True))).posterior()
            closed = Natural.of(torch.lerp(W, prior.W.double(), FADE), torch.lerp(P, prior.P.double(), FADE))
            used = state["past_used"][who]
            same = _lead_of(state, who, first, closed, noise[who])
            slot = torch.where(same.amax(1) > CLEAR_NATS, same.argmax(1), used.argmin(1))
            slot = torch.where(state["recalled"][who] == NONE, slot, state["recalled"][who])
            for name, value in (("past_L", closed.L), ("past_h", closed.h), ("past_used", used.amax(1) + 1)):
                new[name] = new[name].index_put((who, slot), value.to(new[name].dtype))
        for name, start in (("segment_rows", 0), ("recalled", NONE), ("believers", 0)):
            new[name] = torch.where(alarm, start, new[name])
        return new

    def age(self, state: Tensors, rows: Tensor) -> tuple[Tensors, Tensor]:
        """What the archive keeps, ``rows`` (S,) rows later, and whose regime is to be looked at now (S,)."""
        before = state["segment_rows"]
        after = before + rows
        doubled = (before ^ after) > before  # the highest bit is another
        due = doubled & (after <= WATCH_ROWS) & (state["past_used"] > 0).any(1)
        return {**{name: state[name] for name in KEPT}, "segment_rows": after}, due

    def recall(self, state: Tensors, prior: Posterior, due: Tensor, noise: Tensor) -> Tensors:
        """Let members of the streams that are due (S,) go on from a remembered segment, or no longer.

        Args:
            state: The head's, of which all is passed on.
            prior: The prior.
            due: (S,) bool.
            noise: (S, O) variance of the labels' noise.
        """
        who = torch.nonzero(due & (state["past_used"] > 0).any(1))[:, 0]
        if not len(who):
            return state
        first, fastest = Natural.of(*prior), self.members[0]
        grown = Natural.of(state["W"][who, fastest], state["P"][who, fastest])
        ahead = _lead_of(state, who, first, grown, noise[who])
        nats, slot = ahead.max(1)
        held, before = state["recalled"][who], state["believers"][who]
        own = ahead.gather(1, held.clamp_min(0)[:, None])[:, 0]
        after = torch.where(nats > HINT_NATS, before.clamp_min(1), before)
        after = torch.where(nats > CLEAR_NATS, ALL, torch.where(nats < WRONG_NATS, 0, after))
        moves = (after != before) | ((held != NONE) & (nats > own + HINT_NATS))
        if not bool(moves.any()):
            return state
        segment = Natural(state["past_L"][who, slot].double(), state["past_h"][who, slot].double())
        back = Natural(segment.L + grown.L - first.L, segment.h + grown.h - first.h).posterior()
        new = dict(state)
        for name, value in (("W", back.W), ("P", back.P)):
            moved = state[name].clone()
            for member in self.members[1:]:
                enough = self._from(member)
                joins, leaves = moves & (after >= enough), moves & (after < enough) & (before >= enough)
                moved[who[joins], member] = value[joins].to(moved.dtype)
                moved[who[leaves], member] = moved[who[leaves], fastest]
            new[name] = moved
        chosen = torch.where(after > 0, slot, NONE)
        new["recalled"] = state["recalled"].index_put((who,), torch.where(moves, chosen, held))
        new["believers"] = state["believers"].index_put((who,), torch.where(moves, after, before))
        return new

    def trust(self, state: Tensors, members: int) -> Tensor:
        """(S, members) nats by which the believers' weights are raised while their regime is young."""
        raised = state["W"].new_zeros(len(state["W"]), members)
        young = state["segment_rows"] < WATCH_ROWS
        for member in self.members[1:]:
            believes = young & (state["believers"] >= self._from(member))
            nats = torch.where(state["believers"] == ALL, TRUST_NATS[1], TRUST_NATS[0])
            raised[:, member] = torch.where(believes, nats, 0.0)
        return raised

    def _from(self, member: int) -> int:
        """How many must believe for this one to be among them."""
        return 1 if member == self.members[-1] else ALL


def _lead_of(state: Tensors, who: Tensor, prior: Natural, grown: Natural, noise: Tensor) -> Tensor:
    """``lead`` of the segments of streams ``who`` (n,); -inf where there is none."""
    there = state["past_used"][who] > 0
    L = torch.where(there[..., None, None], state["past_L"][who].double(), prior.L)
    nats = lead(Natural(L, state["past_h"][who].double()), prior, grown, noise.double())
    return torch.where(there, nats, -torch.inf)
