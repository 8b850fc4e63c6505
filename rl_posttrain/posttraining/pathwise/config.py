"""Settings of the pathwise objective."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from worldmodel.display.ranges import Count, Positive, Weight, Whole
from worldmodel.training.loss import LossConfig


@dataclass(frozen=True)
class PathwiseConfig:
    """Self-rollouts, and rewards whose own gradient improves the predicted pictures.

    A weight is the length of a reward's gradient relative to that of the regression. With all weights 0 the
    objective is the regression alone, from the same rollouts: the supervised control.
    """

    perceptual: Weight = 0.5
    """Similarity to the recording on the features of EfficientNet-lite; needs worldmodel[perceptual]. By itself it is
    hacked within minutes."""
    realism: Weight = 0.5
    """How real a step from one frame to the next looks to a discriminator that is trained along."""
    agreement: Weight = 0.5
    """Agreement of decoded and commanded actions; needs --inverse-dynamics."""
    extra: tuple[str, ...] = ()
    """Rewards of yours with a gradient, each as module:name=WEIGHT."""
    frames: Annotated[int, Ge(3)] = 13
    """Number of frames of a clip."""
    replaced: Annotated[float, Gt(0), Le(1)] = 0.75
    """Share of the context frames that the model predicts itself; the others stay recorded."""
    passes: Count = 4
    """Largest number of parallel passes that predict them; after n passes, errors of up to n steps add up."""
    depth: Count = 1
    """Number of decoding steps through which the gradient passes: the last one, and the passes before it. More than 1
    needs a GPU; the passes are computed twice to save memory."""
    pictures: Count = 32
    """Number of predicted pictures of an update that the perceptual distance and the discriminator look at."""
    trunk: Literal[0, 2] = 0
    """Trunk of the perceptual distance, EfficientNet-lite0 or -lite2. Measure with the other one."""
    realism_penalty: Weight = 0.01
    """Weight of the penalty on steep discriminators (R1). With 1 the discriminator learns nothing in hundreds of
    updates; with 0.003 its training is not stable."""
    realism_rate: Positive = 5e-4
    """Learning rate of the discriminator."""
    realism_warmup: Whole = 40
    """Number of updates in which the discriminator alone learns, on rollouts of the world model as it is, before the
    first update of the world model. Their loss and the share of held-out pictures that they tell right are in
    discriminator.jsonl."""

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the rewards of this package, without those that are 0."""
        weights = {"perceptual": self.perceptual, "realism": self.realism, "agreement": self.agreement}
        return {name: weight for name, weight in weights.items() if weight}

    def forwarding(self, loss: LossConfig) -> LossConfig:
        """The pretraining loss with these self-rollouts in every batch."""
        return replace(
            loss,
            forward_fraction=1.0,
            forward_replaced=self.replaced,
            forward_passes=self.passes,
            erased=0.0,
            shortcut_interval=0,
        )


def check(config: PathwiseConfig) -> None:
    """Raise a `ValueError` where settings do not go together."""
    if config.depth > config.passes + 1:
        raise ValueError(
            f"pathwise.depth={config.depth}: with {config.passes} passes the gradient passes through at most "
            f"{config.passes + 1} decoding steps"
        )
