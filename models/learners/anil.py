"""ANIL: almost no inner loop. MAML whose inner steps move the last layer alone."""

from dataclasses import dataclass

from models.learners.maml import Maml


@dataclass(frozen=True)
class Anil(Maml):
    """The body is learned in the outer loop only and shared by all streams; a stream's own is one linear layer.

    All options are MAML's. The inner problem is convex, so that greater rates than MAML's are fine.

    Reference:
        Raghu, Raghu, Bengio, Vinyals (2020). Rapid learning or feature reuse? Towards understanding the effectiveness
        of MAML. ICLR.
    """

    @property
    def fast_names(self) -> tuple[str, ...]:
        """Weight and bias of the last layer."""
        return self.net.names[-2:]
