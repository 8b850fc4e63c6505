"""What is measured of a world model after post-training; nothing here rewarded it or chose it.

Objects come first: whether they are there, where they are, and whether they kept their shape. Then come actions that
the second inverse dynamics decode, the perceptual distance of the second trunk, sharpness, and pixels last, since a
world model that erases a small object gains in PSNR.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d

from conditioning.angles import shortest
from policy_eval.judge.inverse_dynamics import InverseDynamics, mean_where
from rl_posttrain.posttraining.guards import HeldOut, dream, motion_energy_ratio
from rl_posttrain.rewards.reward import Rollout
from worldmodel.dreams.context import CONTEXT_FRAMES
from worldmodel.envs import find_objects, object_masks, object_names, object_view
from worldmodel.fidelity.metrics import change_mask, masked_psnr, ssim
from worldmodel.fidelity.perceptual import Trunk, visible
from worldmodel.fidelity.scores import object_scores
from worldmodel.fidelity.shapes import shape_scores
from worldmodel.model.psnr import psnr
from worldmodel.world_model import WorldModel

LATE = 25
"""Actions from this frame on count for the errors of decoded actions."""
TRUNK = 2
"""EfficientNet-lite2; the rewards use lite0."""

ORDER = ("missing", "error_px", "overlap", "spread_error_px")
"""What is measured of an object, in the order of the tables."""

Columns = dict[str, Float[Tensor, "b"]]


@dataclass
class Measures:
    """Measures of dreams of the same held-out stretches by several world models.

    Args:
        windows: The stretches.
        views: Cameras of the world models.
        horizons: Dreamed frames after which dream and truth are compared.
        dynamics: Inverse dynamics that rewarded no arm.
        num_steps: Denoising steps of the dreams.
        seed: Noise seed of the first window.
    """

    windows: HeldOut
    views: Sequence[str]
    horizons: Sequence[int]
    dynamics: InverseDynamics
    num_steps: int = 2
    seed: int = 7
    trunk: Trunk = field(default_factory=lambda: Trunk(TRUNK))

    def columns(self, world: WorldModel, sharpen: float = 0.0) -> tuple[Columns, UInt8[Tensor, "b h v H W 3"]]:
        """One number per window under every name, without the masked PSNR, and the frames at the horizons.

        The dreamed frames are sharpened before they are measured, by as much as `sharpen` says.
        """
        clip = self.windows.clip
        actions = clip.actions[:, CONTEXT_FRAMES - 1 :]
        rollout = dream(world, clip, actions, num_steps=self.num_steps, seed=self.seed)
        if sharpen:
            frames = sharpened(rollout.imagined.frames, sharpen)
            rollout = replace(rollout, imagined=replace(rollout.imagined, frames=frames))
        columns = object_columns(self.windows, rollout, self.views, self.horizons)
        if world.state_dim:
            apart = shortest(rollout.imagined.states - rollout.reference.states, world.config.conditioner.angles)
            columns |= {f"state_error.{h}": apart[:, h].norm(dim=-1) for h in self.horizons}
        columns |= action_columns(self.dynamics, rollout)
        columns |= sharpness_columns(rollout, self.views)
        columns["motion"] = motion_energy_ratio(rollout)
        for name, metric in (("psnr", psnr), ("ssim", ssim)):
            for view, h, dreamed, truth in pictures(rollout, self.views, self.horizons):
                columns[f"{name}.{view}.{h}"] = metric(dreamed, truth)
        return columns, rollout.imagined.frames[:, list(self.horizons)].cpu()

    def masked(self, frames: Mapping[str, UInt8[Tensor, "b h v H W 3"]]) -> dict[str, Columns]:
        """Masked PSNR of every world model, on the union of the masks of the truth and of all of them."""
        found: dict[str, Columns] = {name: {} for name in frames}
        for index, view in enumerate(self.views):
            for place, h in enumerate(self.horizons):
                truth, last = (self.windows.clip.frames[:, CONTEXT_FRAMES - 1 + n, index] for n in (h, 0))
                scores = masked_psnr(truth, {name: x[:, place, index] for name, x in frames.items()}, last)
                for name, values in scores.items():
                    found[name][f"masked_psnr.{view}.{h}"] = values
        return found

    @torch.no_grad()
    def distances(self, frames: UInt8[Tensor, "b h v H W 3"]) -> Columns:
        """Perceptual distance to the recorded pictures at the horizons: as they are, and of what can be seen.

        The features have unit length everywhere, so that differences of one or two of 255 levels on a white
        background, which nobody sees, made up a quarter of the distance of a good world model. `distance` leaves
        differences of at most `UNSEEN` levels out; `distance_raw` does not.
        """
        found = {}
        for index, view in enumerate(self.views):
            for place, h in enumerate(self.horizons):
                truth, dreamed = self.windows.clip.frames[:, CONTEXT_FRAMES - 1 + h, index], frames[:, place, index]
                seen = {"distance": visible(dreamed, truth), "distance_raw": dreamed}
                for name, picture in seen.items():
                    pair = (rearrange(x, "b h w c -> b c h w").float() / 127.5 - 1 for x in (picture, truth))
                    found[f"{name}.{view}.{h}"] = self.trunk.distance(*pair)
        return found


def sharpened(frames: UInt8[Tensor, "b t v H W 3"], amount: float) -> UInt8[Tensor, "b t v H W 3"]:
    """An unsharp mask, `x + amount (x - blurred x)` with the mean of 3 x 3 pixels: what sharpness costs untrained."""
    pictures = rearrange(frames.float(), "b t v h w c -> (b t v) c h w")
    blurred = avg_pool2d(torch.nn.functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    found = (pictures + amount * (pictures - blurred)).clamp(0, 255).round().to(torch.uint8)
    b, t, v = frames.shape[:3]
    return rearrange(found, "(b t v) c h w -> b t v h w c", b=b, t=t, v=v)


def pictures(
    rollout: Rollout, views: Sequence[str], horizons: Sequence[int]
) -> Iterator[tuple[str, int, UInt8[Tensor, "b H W 3"], UInt8[Tensor, "b H W 3"]]]:
    """Camera, horizon, and dreamed and recorded pictures there."""
    for index, view in enumerate(views):
        for h in horizons:
            yield view, h, rollout.imagined.frames[:, h, index].cpu(), rollout.reference.frames[:, h, index].cpu()


def object_columns(windows: HeldOut, rollout: Rollout, views: Sequence[str], horizons: Sequence[int]) -> Columns:
    """Missing rate, position error and shape of every object that can be found in the pictures."""
    kind, found = windows.robot_type, {}
    if not object_names(kind) or object_view(kind) not in views:
        return found
    view, at = list(views).index(object_view(kind)), list(horizons)
    recorded, dreamed = windows.clip.frames[:, :, view], rollout.imagined.frames[:, at, view].cpu()
    now = [CONTEXT_FRAMES - 1 + h for h in at]
    places, tracks = find_objects(kind, recorded), find_objects(kind, dreamed)
    masks, shapes = ({n: torch.as_tensor(m) for n, m in object_masks(kind, x).items()} for x in (recorded, dreamed))
    for name, track in tracks.items():
        scores = dict(object_scores(places[name], track, CONTEXT_FRAMES - 1, at))
        usual = masks[name].sum((2, 3)).float().median(dim=1).values
        scores |= shape_scores(masks[name][:, now], shapes[name], usual)
        for metric in ORDER:
            found |= {f"{metric}.{name}.{h}": scores[metric][:, i] for i, h in enumerate(at)}
    return dict(sorted(found.items(), key=lambda entry: ORDER.index(entry[0].split(".")[0])))


def action_columns(dynamics: InverseDynamics, rollout: Rollout) -> Columns:
    """Mean square of decoded minus commanded actions, in deviations of the commands.

    `early` is before the 25th dreamed frame, `late` from it on, and `recorded` what the recorded frames show there.
    """
    seen = dynamics.visible(rollout.reference)
    error, floor = (dynamics.errors(clip).square() for clip in (rollout.imagined, rollout.reference))
    late = slice(min(LATE, error.shape[1] - 1), None)
    early = slice(0, late.start)
    parts = {"early": (error, early), "late": (error, late), "recorded": (floor, late)}
    return {f"action_error.{name}": mean_where(x[:, part], seen[:, part]) for name, (x, part) in parts.items()}


def sharpness_columns(rollout: Rollout, views: Sequence[str]) -> Columns:
    """Energy of edges over that of the recording: of the whole picture, and where something moved."""
    found = {}
    last = rollout.reference.frames[:, :1].cpu()
    for index, view in enumerate(views):
        pair = [c.frames[:, 1:, index].cpu() for c in (rollout.imagined, rollout.reference)]
        moved = change_mask(pair[1], {"dream": pair[0]}, last[:, :, index].expand_as(pair[0]))
        for name, where in (("sharpness", torch.ones_like(moved)), ("sharpness_moved", moved)):
            energies = [edge_energy(frames, where) for frames in pair]
            ratio = energies[0] / energies[1].clamp_min(1e-9)
            found[f"{name}.{view}"] = torch.where(energies[1] > 0, ratio, torch.nan)
    return found


def edge_energy(frames: UInt8[Tensor, "b t H W 3"], where: Bool[Tensor, "b t H W"]) -> Float[Tensor, "b"]:
    """Sum of the squares of the discrete Laplacian over the pixels in `where`: blur lowers it, noise raises it."""
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]
    pictures = rearrange(frames.float() / 255, "b t h w c -> (b t c) 1 h w")
    edges = conv2d(torch.nn.functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), kernel).square()
    edges = rearrange(edges, "(b t c) 1 h w -> b t c h w", b=len(frames), c=3).sum(2)
    return (edges * where).sum((1, 2, 3))
