"""What a stream is served in its first rows: whom to believe, and how much of the frozen start stays."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from models.audition import audition, served_error
from models.bundle import Model
from models.training import Split, by_stream, segments_of

COLD_ROWS = 20
"""Rows of a piece: a stream that has just begun."""
PIECES_MAX = 128
COLD_SHARES = (0.0, 0.3, 0.6, 0.9)
"""Shares of the frozen start's answer after a stream's first row that are tried."""
EVEN_PIECES = 20
"""Pieces that speak for all members alike: later rows differ from the held-out ones."""
EM_ROUNDS = 50


def cold_split(split: Split) -> Split:
    """Held-out rows as short pieces, each a stream that has just begun: of streams that nothing was learned from.

    Where no stream is held out whole, of all held-out rows.
    """
    pieces = segments_of(split.segments if split.unseen is None else split.unseen, COLD_ROWS)
    chosen = np.linspace(0, len(pieces.stream_names) - 1, min(PIECES_MAX, len(pieces.stream_names))).astype(np.int64)
    pieces = pieces.take(np.isin(pieces.streams, chosen))
    return split._replace(table=pieces, learn=[], judge=by_stream(pieces))


def cold_error(model: Model, cold: Split, share: float) -> float:
    """Error of what is served in first rows with this share of the frozen start's answer."""
    spec = replace(model.spec, cold_share=share)
    heard = audition(Model(spec, model.meta), cold)
    return served_error(spec, heard, np.exp(heard.served) if spec.task == "classification" else heard.served)


def cold_weights(model: Model, cold: Split, kept: Sequence[int]) -> tuple[float, ...]:
    """How much to believe each member before a stream has shown anything.

    Args:
        model: With all candidates.
        cold: What ``cold_split`` gives: short pieces, each of which starts cold.
        kept: The members that stay.

    Returns:
        The weights of a mixture of these members that makes all pieces likeliest (expectation maximisation, with
        further pieces spread evenly). Neighbouring rows say much the same: a piece of n counts as √n.
    """
    heard = audition(Model(replace(model.spec, weights=()), model.meta), cold)
    likely = np.where(heard.scored[..., None], heard.evidence[..., kept], 0.0).sum(1) / math.sqrt(COLD_ROWS)
    weights = np.full(len(kept), 1 / len(kept))
    for _ in range(EM_ROUNDS):
        posterior = weights * np.exp(likely - likely.max(1, keepdims=True))
        posterior /= posterior.sum(1, keepdims=True)
        weights = (posterior.sum(0) + EVEN_PIECES / len(kept)) / (len(posterior) + EVEN_PIECES)
    return tuple(float(each) for each in weights)
