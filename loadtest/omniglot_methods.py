"""How each learner is meta-trained for the Omniglot benchmark."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from models import LEARNERS, Learner, Tensors

NEVER_FORGET_ROWS = 1e9


@dataclass(frozen=True)
class Method:
    """How a learner is trained.

    Attributes:
        title: What the table calls it.
        learner: Its name in LEARNERS.
        hyper_parameters: Its own.
        episodes: Arguments of ``CharacterEpisodes``.
        training: Arguments of ``meta_train``.
        at_test: Hyper-parameters that testing changes.
    """

    title: str
    learner: str
    hyper_parameters: Mapping[str, Any]
    episodes: Mapping[str, Any]
    training: Mapping[str, Any]
    at_test: Mapping[str, Any] = field(default_factory=dict)

    def build(self, ways: int, **changes: Any) -> Learner:
        """The learner for ``ways`` classes."""
        given = {**self.hyper_parameters, **changes}
        return LEARNERS[self.learner](task="classification", inputs=784, outputs=ways, **given)


def narrowed(meta: Tensors, ways: int) -> Tensors:
    """Learned tensors for fewer classes than were trained: a task's classes are exchangeable, so all get the mean."""
    if "prior" not in meta or len(meta["prior"]) == ways:
        return meta
    means = {name: meta[name].mean(0, keepdim=True) for name in ("prior", "free_rows")}
    return meta | {name: mean.expand(ways, *mean.shape[1:]).contiguous() for name, mean in means.items()}


_WIDE: Mapping[str, Any] = {"network": "conv_instance", "hidden": (32, 64, 64)}
_NARROW: Mapping[str, Any] = {"network": "conv_instance", "hidden": (16, 32, 32), "gradient_clip": 10.0}
_TWENTY: Mapping[str, Any] = {"tasks": 1, "ways": 20, "shots": (1,), "query": 5, "warp": 0.15}
_FIVE: Mapping[str, Any] = {"tasks": 4, "ways": 5, "shots": (1,), "query": 5, "warp": 0.15}
_MIXED: Mapping[str, Any] = {"tasks": 2, "ways": 5, "shots": (1, 5), "query": 5, "warp": 0.15}

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "protonet": Method("ProtoNet", "protonet", _WIDE, _TWENTY, {"iterations": 1_000, "outer_lr": 3e-3}),
        "matchingnet": Method(
            "MatchingNet, squared distance", "matchingnet", _WIDE, _TWENTY, {"iterations": 1_000, "outer_lr": 3e-3},
        ),
        "bayes_head": Method(
            "Bayesian head, full prior", "bayes_head",
            {**_WIDE, "full_prior": True, "skip": False, "tau_rows": (NEVER_FORGET_ROWS,),
             "challenger_tau_rows": NEVER_FORGET_ROWS},
            _FIVE, {"iterations": 600, "outer_lr": 3e-3},
        ),
        "maml": Method(
            "MAML, 1 step", "maml", {**_NARROW, "inner_lr": 0.4, "steps": 1}, _MIXED,
            {"iterations": 2_000, "outer_lr": 3e-3},
        ),
        "meta_sgd": Method(
            "Meta-SGD, 1 step", "meta_sgd", {**_NARROW, "inner_lr": 0.4, "steps": 1}, _MIXED,
            {"iterations": 2_000, "outer_lr": 3e-3},
        ),
        "reptile": Method(
            "Reptile, 5 steps", "reptile", {**_NARROW, "inner_lr": 0.1, "steps": 5}, _MIXED,
            {"iterations": 500, "outer_lr": 3e-3},
        ),
    },
)  # fmt: skip
