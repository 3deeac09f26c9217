"""Learners: how one expert of a model is meta-trained, adapted and asked. One file each, one interface."""

from collections.abc import Mapping
from types import MappingProxyType

from models.learners.anil import Anil
from models.learners.base import KeepsPosteriors, Learner, LearnerKind
from models.learners.bayes_head import NEVER_ROWS, TAU_ROWS, BayesHead
from models.learners.cavia import Cavia
from models.learners.class_posterior import ClassPosterior
from models.learners.maml import Maml
from models.learners.matchingnet import MatchingNet
from models.learners.meta_sgd import MetaSgd
from models.learners.protonet import ProtoNet
from models.learners.reptile import Reptile

LEARNERS: Mapping[str, LearnerKind] = MappingProxyType(
    {
        "anil": Anil,
        "bayes_head": BayesHead,
        "cavia": Cavia,
        "class_posterior": ClassPosterior,
        "maml": Maml,
        "matchingnet": MatchingNet,
        "meta_sgd": MetaSgd,
        "protonet": ProtoNet,
        "reptile": Reptile,
    }
)
"""Every learner by the name that a bundle gives it."""

__all__ = ["LEARNERS", "NEVER_ROWS", "TAU_ROWS", "KeepsPosteriors", "Learner", "LearnerKind"]
