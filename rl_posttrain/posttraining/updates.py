"""What one optimiser step minimises: the contrastive loss on branches, and its controls.

All randomness of a step is drawn up front, so a loss is a pure function of weights and batch.
"""

from dataclasses import dataclass, replace

import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rl_posttrain.posttraining.branches import Branches, encode_branches
from rl_posttrain.posttraining.flow_grpo import first_step, log_ratio, policy_loss
from rl_posttrain.posttraining.nft import kl_penalty, nft_loss
from rl_posttrain.rewards.credit import regrid
from worldmodel.data.clip import Clip
from worldmodel.model.backbone import EncodedFrames
from worldmodel.model.flow import add_noise, ramp_weight
from worldmodel.training.loss import Draws, LossConfig, motion_weight, presence, training_loss
from worldmodel.world_model import WorldModel

INNER = 0.98
"""Latents are inner below this absolute value; a picture's black is -1 and its white is 1."""


@dataclass(frozen=True)
class UpdateWeights:
    """How much each term counts.

    Attributes:
        contrast: The contrastive loss; 0 for none.
        supervision: Regression to the recorded frames in place of the generated ones; 0 for none.
        kl: Squared distance to the reference's predictions; 0 for none.
        beta: `b` of the contrastive loss.
        policy: The policy gradient of Flow-GRPO; 0 for none.
        inner: Leave pixels that are black or white in the recording out of contrast and policy gradient.
    """

    contrast: float
    supervision: float
    kl: float
    beta: float
    policy: float = 0.0
    inner: bool = False


@dataclass(frozen=True)
class BranchBatch:
    """Branches with their scores and the random numbers of an update.

    Attributes:
        branches: `b` starts with `k` candidates of `m` frames.
        good: `r` of every candidate, or a map of it over frames, cameras and cells, each of its size or 1.
        kept: Which candidates take part.
        tau: Noise level of every generated frame, one of the sampler's.
        noise, state_noise: Noise of the latents and of the state displacements, at the sampler's
            temperature.
        num_steps: Denoising steps of the sampler.
    """

    branches: Branches
    good: Float[Tensor, "b k *map"]
    kept: Bool[Tensor, "b k"]
    tau: Float[Tensor, "b k m"]
    noise: Float[Tensor, "b k m v c h w"]
    state_noise: Float[Tensor, "b k m s"]
    num_steps: int

    def __len__(self) -> int:
        """Number of starts."""
        return len(self.kept)

    def rows(self, rows: slice) -> "BranchBatch":
        """Some of the starts."""
        chosen = {name: each[rows] for name, each in vars(self).items() if isinstance(each, Tensor)}
        return replace(self, **chosen, branches=self.branches.rows(rows))


@dataclass(frozen=True)
class RecordedBatch:
    """Recorded clips with the random numbers of the pretraining loss."""

    clip: Clip
    draws: Draws

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.clip.frames)

    def rows(self, rows: slice) -> "RecordedBatch":
        """Some of the clips."""
        return RecordedBatch(self.clip.rows(rows), self.draws.rows(rows.start, rows.stop))


class Update(nn.Module):
    """The loss as a module's `forward`, which is what data parallelism wraps.

    Args:
        world: The policy that is trained.
        old: The policy that generates; never receives a gradient.
        reference: The world model before post-training; needed where `weights.kl` is not 0.
        weights: Weights of the terms.
        loss: Settings of the pretraining loss; its weight of moving pixels is used here, too.
    """

    def __init__(
        self, world: WorldModel, old: WorldModel, reference: WorldModel | None, weights: UpdateWeights, loss: LossConfig
    ):
        super().__init__()
        self.world, self.weights, self.loss = world, weights, loss
        self.frozen = (old, reference)  # a tuple: not trained, not synchronised

    def forward(self, batch: BranchBatch | RecordedBatch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss and its parts."""
        if isinstance(batch, RecordedBatch):
            return training_loss(self.world, batch.clip, batch.draws, self.loss)
        return branch_loss(self.world, *self.frozen, batch, self.weights, self.loss)


def branch_loss(
    world: WorldModel,
    old: WorldModel,
    reference: WorldModel | None,
    batch: BranchBatch,
    weights: UpdateWeights,
    loss: LossConfig,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Loss of a batch of branches, and its parts without gradient.

    Every generated frame is noised to one of the sampler's own noise levels and predicted with the
    sampler's step size, so the update improves the sampler that made it. The weight of a pixel is
    that of the pretraining loss; the identity of the contrastive loss holds for any weighted norm.

    Returns:
        The loss, and `contrast`, `policy`, `supervision`, `kl` as far as they are used, and, with a contrast, `gap`:
        the root mean square distance of the new and the old policy's predicted frames.
    """
    encoded = encode_branches(world, batch.branches)
    drawn = drawn_frames(world, batch, loss, inner=weights.inner)
    losses, parts = {}, {}
    if weights.contrast or weights.kl:
        predicted = predict_frames(world, encoded, batch, drawn.clean)
    if weights.contrast:
        with torch.no_grad():
            before = predict_frames(old, encode_branches(old, batch.branches), batch, drawn.clean)
            parts["gap"] = (predicted[0] - before[0]).square().mean().sqrt()
        losses["contrast"] = weights.contrast * contrast(
            predicted, before, batch, drawn, weights.beta, loss.state_weight
        )
    if weights.policy:
        with torch.no_grad():
            before = first_step(old, encode_branches(old, batch.branches), drawn.clean)[0]
        after = first_step(world, encoded, drawn.clean)[0]
        losses["policy"] = weights.policy * policy_gradient(after, before, batch, drawn.pixels)
    if weights.supervision:
        losses["supervision"] = weights.supervision * _supervision(world, encoded, batch, loss)
    if weights.kl:
        with torch.no_grad():
            anchor = predict_frames(reference, encode_branches(reference, batch.branches), batch, drawn.clean)
        errors = [kl_penalty(p, q) for p, q in zip(predicted, anchor, strict=True)]
        losses["kl"] = weights.kl * _reduce(errors, drawn.pixels, loss.state_weight).mean()
    return sum(losses.values()), parts | {k: v.detach() for k, v in losses.items()}


@dataclass(frozen=True)
class DrawnFrames:
    """The generated frames of a batch as the network predicts them, `n = k m` of each start.

    Attributes:
        clean: Latents, and displacements of the states where there are any.
        pixels: Weight of every pixel.
    """

    clean: tuple[Float[Tensor, "b n ..."], ...]
    pixels: Float[Tensor, "b n v 1 h w"]


def drawn_frames(world: WorldModel, batch: BranchBatch, loss: LossConfig, *, inner: bool = False) -> DrawnFrames:
    """The frames that the old policy generated, as targets.

    Args:
        world: The policy that is trained.
        batch: Its branches.
        loss: Settings of the pretraining loss, for the weight of pixels.
        inner: Whether pixels with a colour at an end of its range in the recording weigh 0. Noise in one direction is
            cut off there and costs nothing, so that every batch would push such pixels beyond their range.
    """
    branches = batch.branches
    clean = _parts(world, branches, branches.sample, branches.sample_states)
    pixels = _pixel_weight(world, branches, clean[0], loss)
    if inner:
        within = (branches.truth.abs().amax(dim=3, keepdim=True) < INNER).float()
        pixels = pixels * repeat(within, "b m ... -> b (k m) ...", k=batch.tau.shape[1])
    return DrawnFrames(clean, pixels)


def contrast(
    predicted: tuple[Float[Tensor, "b n ..."], ...],
    before: tuple[Float[Tensor, "b n ..."], ...],
    batch: BranchBatch,
    drawn: DrawnFrames,
    beta: float,
    state_weight: float,
) -> Float[Tensor, ""]:
    """The contrastive loss of a batch: its mean over the frames of the candidates that take part.

    Args:
        predicted: Frames that the new policy predicts from the noised ones, and displacements.
        before: The same of the old policy, without gradient.
        batch: Says how good the candidates are and which of them take part.
        drawn: The frames that were generated.
        beta: `b` of the loss.
        state_weight: Weight of the states.
    """
    frames = batch.tau.shape[-1]
    shares = shares_of(batch.good, frames, tuple(drawn.clean[0].shape[-2:]))
    kept = repeat(batch.kept.float(), "b k -> b (k m)", m=frames)
    errors = [
        nft_loss(p.flatten(0, 1), q.flatten(0, 1), x.flatten(0, 1), share, beta).unflatten(0, x.shape[:2])
        for p, q, x, share in zip(predicted, before, drawn.clean, shares[: len(drawn.clean)], strict=True)
    ]
    return (_reduce(errors, drawn.pixels, state_weight) * kept).sum() / kept.sum()


def policy_gradient(
    after: Float[Tensor, "b n v c h w"],
    before: Float[Tensor, "b n v c h w"],
    batch: BranchBatch,
    pixels: Float[Tensor, "b n v 1 h w"],
) -> Float[Tensor, ""]:
    """The loss of Flow-GRPO: the likelihood of the candidates' noise, by their advantages `2 r - 1`.

    The logarithm of the ratio is the mean over what the advantages do not tell apart: a cell, or the whole frame.

    Args:
        after: Clean frames that the new policy predicts in the first step.
        before: The same of the old policy, without gradient.
        batch: Candidates of one frame, their noise and how good they are.
        pixels: Weight of every pixel.
    """
    good = batch.good if batch.good.ndim > 2 else batch.good[..., None, None, None, None]
    advantages = rearrange(2 * good - 1, "b k 1 v h w -> (b k) 1 v h w")
    logarithm = pixels * log_ratio(after, before, rearrange(batch.noise, "b k 1 ... -> b k ..."))
    logarithm = regrid(reduce(logarithm, "b n v c h w -> (b n) 1 v h w", "mean"), tuple(advantages.shape[-2:]))
    if advantages.shape[2] == 1:
        logarithm = logarithm.mean(dim=2, keepdim=True)
    value = policy_loss(logarithm, advantages.expand_as(logarithm)).mean(dim=(1, 2, 3, 4))
    kept = batch.kept.flatten().float()
    return (value * kept).sum() / kept.sum()


def shares_of(
    good: Float[Tensor, "b k *map"], frames: int, size: tuple[int, int]
) -> tuple[Float[Tensor, "n v 1 h w"], Float[Tensor, "n"]]:
    """`r` of the latents and of the states of `n = b k m` frames; a state has the mean over cameras and cells.

    Args:
        good: One number for each candidate, or a map.
        frames: Frames of a candidate, `m`.
        size: Height and width of the latents.

    Raises:
        ValueError: The cells do not fit the latents.
    """
    if good.ndim == 2:
        good = good[..., None, None, None, None]
    fine = regrid(good.flatten(0, 1), size)
    fine = fine.expand(-1, frames, -1, -1, -1)
    latents = rearrange(fine, "n m v h w -> (n m) v 1 h w")
    return latents, reduce(fine, "n m v h w -> (n m)", "mean")


def _supervision(world: WorldModel, encoded: EncodedFrames, batch: BranchBatch, loss: LossConfig) -> Float[Tensor, ""]:
    """Regression to the recording, from the frames that the model generated itself."""
    branches, candidates = batch.branches, batch.tau.shape[1]
    truth = repeat(branches.truth, "b m ... -> b k m ...", k=candidates)
    states = branches.truth_states
    if states is not None:
        states = repeat(states, "b m s -> b k m s", k=candidates)
    goal = _parts(world, branches, truth, states)
    predicted = predict_frames(world, encoded, batch, goal)
    pixels = _pixel_weight(world, branches, goal[0], loss)
    errors = [(p - x) ** 2 for p, x in zip(predicted, goal, strict=True)]
    weight = ramp_weight(batch.tau.flatten(1), loss.ramp_floor)
    return (weight * _reduce(errors, pixels, loss.state_weight)).mean()


def _parts(world: WorldModel, branches: Branches, latents: Tensor, states: Tensor | None) -> tuple[Tensor, ...]:
    """Clean latents, and displacements from the state before, of `b (k m)` frames."""
    flat = rearrange(latents, "b k m ... -> b (k m) ...")
    if states is None:
        return (flat,)
    moved = world.conditioner.displacement(states, branches.current_states)
    return flat, rearrange(moved, "b k m s -> b (k m) s")


def predict_frames(
    world: WorldModel, encoded: EncodedFrames, batch: BranchBatch, clean: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Frames, and displacements of the states, predicted from `clean` at the batch's noise levels."""
    tau = batch.tau.flatten(1)
    noise = [rearrange(n, "b k m ... -> b (k m) ...") for n in (batch.noise, batch.state_noise)]
    noisy = tuple(add_noise(x, n, tau) for x, n in zip(clean, noise[: len(clean)], strict=True))
    step_size = torch.full_like(tau, 1 / batch.num_steps)
    return tuple(x.float() for x in world.predict(encoded, noisy, tau, step_size))


def _pixel_weight(
    world: WorldModel, branches: Branches, target: Tensor, loss: LossConfig
) -> Float[Tensor, "b n v 1 h w"]:
    current = rearrange(branches.current, "b k m ... -> b (k m) ...")
    moving = motion_weight(target, current, loss.motion_contrast, loss.motion_saturation)
    return moving * presence(world, branches.clip, current)


def _reduce(errors: list[Tensor], pixels: Tensor, state_weight: float) -> Float[Tensor, "b n"]:
    value = reduce(pixels * errors[0], "b n v c h w -> b n", "mean")
    return value if len(errors) == 1 else value + state_weight * errors[1].mean(dim=-1)
