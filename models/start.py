"""The frozen start of a model: boosted trees, or a network, whose answer is an input of experts.

An expert's prior sees the answer as one more column, and a Bayesian head starts by believing it: what the head then
learns of a stream is what the start leaves over.
"""

import torch
from torch import Tensor

from models.tabular import network_scores
from models.trees import tree_scores
from models.types import ModelSpec, TaskKind, Tensors

PREFIX = "start."
"""Begins the names of the start's tensors among a model's learned tensors."""
ANSWER_CLIP = 10.0
"""A numeric answer beyond this many standard deviations of the training targets is cut."""


def start_answers(spec: ModelSpec, meta: Tensors, z: Tensor) -> Tensor | None:
    """What the start says of rows, or None for a model without one.

    Args:
        spec: The model.
        meta: Its learned tensors.
        z: (S, B, D + L) bundle-standardised features, then lag columns, which a start does not see.

    Returns:
        (S, B, O) targets in the learners' scale, or (S, B, C) class probabilities stretched to [-1, 1].
    """
    if not spec.start:
        return None
    return link(spec.task, start_scores(spec.start, meta, z[..., : len(spec.features)]))


def start_scores(kind: str, tensors: Tensors, x: Tensor) -> Tensor:
    """Raw scores (…, K) of rows (…, D) by a start of a kind that ``ModelSpec.start`` names."""
    return (network_scores if kind == "tabular_network" else tree_scores)(tensors, x, PREFIX)


def link(task: TaskKind, scores: Tensor) -> Tensor:
    """Raw scores (…, K) to answers: (…, O) numbers, or (…, C) probabilities stretched to [-1, 1]."""
    if task == "regression":
        return scores.clamp(-ANSWER_CLIP, ANSWER_CLIP)
    if scores.shape[-1] == 1:  # two classes have one score, the log odds of the second
        odds = torch.tanh(scores / 2)
        return torch.cat([-odds, odds], dim=-1)
    return 2 * torch.softmax(scores, dim=-1) - 1
