"""Distinguish a better world model from a hacked reward: score held-out rollouts by other measures.

A contrastive reward can be raised by blur, by standing still or by ignoring the action. So every
evaluation measures position errors of the objects, sharpness, the energy of motion, the response
to other actions and, with a matcher, the agreement of the cameras, none of which is rewarded by default.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import conv2d

from conditioning.angles import shortest
from policy_eval.judge.inverse_dynamics import InverseDynamics
from rl_posttrain.rewards.agreement import motion_energy
from rl_posttrain.rewards.credit import numbers
from rl_posttrain.rewards.reward import Reward, Rollout
from worldmodel.data.clip import Clip, EpisodeSource
from worldmodel.dreams.context import CONTEXT_FRAMES, context_of
from worldmodel.envs import find_objects, object_names, object_view
from worldmodel.fidelity.cross_view.agreement import agreement
from worldmodel.fidelity.cross_view.matcher import CrossViewMatcher
from worldmodel.fidelity.metrics import ssim
from worldmodel.fidelity.scores import object_scores
from worldmodel.fidelity.windows import evenly_spaced_windows, read_windows
from worldmodel.model.psnr import psnr
from worldmodel.world_model import WorldModel

RESPONSE_FRAMES = 10
"""Frames dreamed under other actions."""


@dataclass(frozen=True)
class HeldOut:
    """Stretches of held-out episodes to dream.

    Attributes:
        clip: 8 frames of context and the horizon, one row per window.
        episodes: The episode of each window.
        robot_type: Decides which objects are searched for.
    """

    clip: Clip
    episodes: tuple[int, ...]
    robot_type: str

    @property
    def horizon(self) -> int:
        """Dreamed frames."""
        return self.clip.frames.shape[1] - CONTEXT_FRAMES


def read_held_out(
    world: WorldModel, source: EpisodeSource, episodes: Sequence[int], *, horizon: int, starts: int
) -> HeldOut:
    """`starts` windows of every episode, evenly spaced from its beginning to the last that fits.

    Raises:
        ValueError: An episode is too short.
    """
    windows = evenly_spaced_windows(source, starts=starts, horizon=horizon, stride=world.stride, episodes=episodes)
    clip = read_windows(source, windows, horizon=horizon, stride=world.stride)
    clip = replace(clip, states=clip.states if world.state_dim else None)
    return HeldOut(clip, tuple(window.episode for window in windows), source.robot_type)


def dream(world: WorldModel, clip: Clip, actions: Float[Tensor, "b m a"], *, num_steps: int, seed: int) -> Rollout:
    """Dream the clip after its context under `actions`; window `i` has noise seed `seed + i`."""
    clip = clip.to(world.device)
    dreamed = world.rollout(context_of(clip), actions, num_steps=num_steps, seeds=seed)
    late = slice(CONTEXT_FRAMES - 1, CONTEXT_FRAMES + actions.shape[1])
    reference = replace(
        clip,
        frames=clip.frames[:, late],
        actions=actions.to(world.device),
        states=None if clip.states is None else clip.states[:, late],
        rewards=None,
        successes=None if clip.successes is None else clip.successes[:, late.start : late.stop - 1],
    )
    imagined = replace(
        reference,
        successes=None,
        frames=torch.cat([reference.frames[:, :1], dreamed.frames], dim=1),
        states=None if dreamed.states is None else torch.cat([reference.states[:, :1], dreamed.states], dim=1),
    )
    return Rollout(imagined, reference)


def high_frequency(frames: UInt8[Tensor, "b t v H W 3"]) -> Float[Tensor, "b"]:
    """Mean square of the discrete Laplacian: blur lowers it, noise raises it."""
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    pictures = rearrange(frames.float() / 255, "b t v h w c -> (b t v c) 1 h w")
    edges = conv2d(pictures, kernel.to(frames.device)[None, None])
    return edges.square().mean(dim=(1, 2, 3)).unflatten(0, (len(frames), -1)).mean(dim=1)


def sharpness_ratio(rollout: Rollout) -> Float[Tensor, "b"]:
    """High-frequency energy of the imagined frames over that of the recorded ones."""
    energies = [high_frequency(c.frames[:, 1:]) for c in (rollout.imagined, rollout.reference)]
    return energies[0] / energies[1].clamp_min(1e-9)


def motion_energy_ratio(rollout: Rollout) -> Float[Tensor, "b"]:
    """Change between frames over that of the recording; NaN where nothing moves there."""
    energy, real = (motion_energy(c.frames) for c in (rollout.imagined, rollout.reference))
    return torch.where(real > 0.05, energy / real, torch.nan)


def action_response(
    world: WorldModel, held_out: HeldOut, rollout: Rollout, *, num_steps: int, seed: int
) -> Float[Tensor, "b"]:
    """Mean absolute difference to the dream under other actions and the same noise; 0..255.

    The other actions are those of another window; if there is only one window, its own in reverse.
    """
    frames = min(RESPONSE_FRAMES, held_out.horizon)
    actions = rollout.imagined.actions
    others = actions.roll(1, dims=0) if len(actions) > 1 else actions.flip(1)
    others = others[:, :frames]
    other = dream(world, held_out.clip, others, num_steps=num_steps, seed=seed)
    pair = [x.imagined.frames[:, 1 : frames + 1].float() for x in (rollout, other)]
    return (pair[0] - pair[1]).abs().mean(dim=(1, 2, 3, 4, 5))


def cameras_agree(matcher: CrossViewMatcher, held_out: HeldOut, rollout: Rollout) -> Float[Tensor, "b"]:
    """Share of swaps with the cameras of other episodes that are noticed, mean over the lengths of a rollout."""
    codes = matcher.codes(rollout.imagined.frames[:, 1:], held_out.clip.view_mask)
    return agreement(codes, torch.tensor(held_out.episodes)).nanmean(dim=1)


def object_errors(held_out: HeldOut, rollout: Rollout, views: Sequence[str]) -> dict[str, Float[Tensor, "b m"]]:
    """Position error of every object that can be found, at every dreamed frame; px of 64."""
    kind = held_out.robot_type
    if not object_names(kind) or object_view(kind) not in views:
        return {}
    view = list(views).index(object_view(kind))
    real = find_objects(kind, held_out.clip.frames[:, :, view])
    found = find_objects(kind, rollout.imagined.frames[:, 1:, view].cpu())
    horizons = range(1, held_out.horizon + 1)
    return {
        name: object_scores(real[name], track, CONTEXT_FRAMES - 1, horizons)["error_px"]
        for name, track in found.items()
    }


def score(
    world: WorldModel,
    held_out: HeldOut,
    *,
    rewards: Mapping[str, Reward],
    dynamics: InverseDynamics | None,
    matcher: CrossViewMatcher | None = None,
    num_steps: int,
    seed: int,
) -> tuple[dict[str, Float[Tensor, "b"]], Rollout]:
    """Dream the held-out windows and score them.

    Returns:
        One number per window: `reward.<name>` of every reward, `psnr`, `ssim` (means over frames
        and cameras), `error.<object>` (px), `state_error`, `action_error`, `cross_view` (0..1, higher is better),
        `sharpness`, `motion` and `response`; NaN where something cannot be measured. And the dreams themselves.
    """
    actions = held_out.clip.actions[:, CONTEXT_FRAMES - 1 :]
    rollout = dream(world, held_out.clip, actions, num_steps=num_steps, seed=seed)
    pair = [c.frames[:, 1:] for c in (rollout.imagined, rollout.reference)]
    scores = {f"reward.{name}": numbers(reward(rollout), rollout.reference) for name, reward in rewards.items()}
    scores |= {"psnr": psnr(*pair).mean(dim=(1, 2)), "ssim": ssim(*pair).mean(dim=(1, 2))}
    for name, errors in object_errors(held_out, rollout, world.views).items():
        scores[f"error.{name}"] = errors.nanmean(dim=1)
    if world.state_dim:
        apart = rollout.imagined.states - rollout.reference.states
        apart = shortest(apart, world.config.conditioner.angles)[:, 1:]
        scores["state_error"] = apart.norm(dim=-1).mean(dim=1)
    if dynamics is not None:
        scores["action_error"] = dynamics.disagreement(rollout.imagined, dynamics.visible(rollout.reference))
    if matcher is not None:
        scores["cross_view"] = cameras_agree(matcher, held_out, rollout)
    scores["sharpness"] = sharpness_ratio(rollout)
    scores["motion"] = motion_energy_ratio(rollout)
    scores["response"] = action_response(world, held_out, rollout, num_steps=num_steps, seed=seed)
    return scores, rollout


def held_back(scores: Mapping[str, Float[Tensor, "b"]], rewarded: Sequence[str]) -> tuple[str, Float[Tensor, "b"]]:
    """The unrewarded measure that early stopping uses, on every window; lower is better.

    The mean position error of the objects where they can be found (a lost object counts as 32 px), else the error of
    the state where that is not rewarded, else how far motion and sharpness are from those of the recording.
    """
    errors = [values for name, values in scores.items() if name.startswith("error.")]
    if errors and torch.stack(errors).isfinite().any():
        return "object error", torch.stack(errors).nanmean(dim=0)
    if "state_error" in scores and "state" not in rewarded:
        return "state error", scores["state_error"]
    return "distortion", (scores["sharpness"] - 1).abs() + (scores["motion"] - 1).abs()


def means(scores: Mapping[str, Float[Tensor, "b"]]) -> dict[str, float]:
    """Means over the windows, without those that cannot be measured."""
    return {name: float(values.nanmean()) for name, values in scores.items()}
