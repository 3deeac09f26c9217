"""The frozen start of a model: boosted trees whose answer is an input of every expert.

An expert's prior sees the answer as one more column, and a Bayesian head starts by believing it: what the head then
learns of a stream is what the trees leave over.
"""

import torch
from torch import Tensor

from models.trees import tree_scores
from models.types import ModelSpec, TaskKind, Tensors

PREFIX = "start."
"""Begins the names of the trees' tensors among a model's learned tensors."""
ANSWER_CLIP = 10.0
"""A numeric answer beyond this many standard deviations of the training targets is cut."""


def start_answers(spec: ModelSpec, meta: Tensors, z: Tensor) -> Tensor | None:
    """What the start says of rows, or None for a model without one.

    Args:
        spec: The model.
        meta: Its learned tensors.
        z: (S, B, D + L) bundle-standardised features, then lag columns, which trees do not see.

    Returns:
        (S, B, O) targets in the learners' scale, or (S, B, C) class probabilities stretched to [-1, 1].
    """
    if not spec.start:
        return None
    return link(spec.task, tree_scores(meta, z[..., : len(spec.features)], PREFIX))


def link(task: TaskKind, scores: Tensor) -> Tensor:
    """Raw scores (…, K) to answers: (…, O) numbers, or (…, C) probabilities stretched to [-1, 1]."""
    if task == "regression":
        return scores.clamp(-ANSWER_CLIP, ANSWER_CLIP)
    if scores.shape[-1] == 1:  # two classes have one score, the log odds of the second
        odds = torch.tanh(scores / 2)
        return torch.cat([-odds, odds], dim=-1)
    return 2 * torch.softmax(scores, dim=-1) - 1
