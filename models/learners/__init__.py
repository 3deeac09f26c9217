"""Learners: how one expert of a model is meta-trained, adapted and asked. One file each, one interface."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from models.learners.base import Learner
from models.learners.bayes_head import BayesHead
from models.learners.maml import Maml
from models.learners.meta_sgd import MetaSgd

LEARNERS: Mapping[str, Callable[..., Learner]] = MappingProxyType(
    {
        "bayes_head": BayesHead,
        "maml": Maml,
        "meta_sgd": MetaSgd,
    }
)
"""Every learner by the name that a bundle gives it."""

__all__ = ["LEARNERS", "Learner"]
