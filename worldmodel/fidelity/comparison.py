"""Dream windows and score them against the truth and the baselines, batch by batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import repeat
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from worldmodel.data.clip import Clip, EpisodeSource
from worldmodel.dreams.context import CONTEXT_FRAMES, context_of
from worldmodel.envs import find_objects, object_masks, object_names, object_view
from worldmodel.fidelity.cross_view.agreement import agreement
from worldmodel.fidelity.cross_view.matcher import CrossViewMatcher
from worldmodel.fidelity.metrics import LPIPS_MIN_SIDE, Lpips, valid_region
from worldmodel.fidelity.perceptual import VisibleDistance
from worldmodel.fidelity.scores import ScoreTable, object_scores, pixel_scores
from worldmodel.fidelity.shapes import shape_scores
from worldmodel.fidelity.windows import Alteration, Window, holding_actions, mirrored_actions, read_windows
from worldmodel.model.psnr import psnr
from worldmodel.streaming.coded import recoded
from worldmodel.streaming.stream import Stream
from worldmodel.world_model import WorldModel

LAST_CONTEXT = CONTEXT_FRAMES - 1
GAINS = ("psnr", "masked_psnr")
"""Metrics of which the gain over copying the last frame is summed up window by window, for its interval."""

SCORED_AT_ONCE = 5
"""Frames of every window that are scored at once for the means over the horizon; all of them take much memory."""


def dream(
    stream: Stream,
    actions: Float32[Tensor, "b m a"] | None,
    *,
    horizon: int,
    horizons: Sequence[int],
    num_steps: int,
    temperature: float | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> UInt8[Tensor, "b h v H W 3"]:
    """Roll out from a copy of `stream` and keep the frames at `horizons`.

    Args:
        stream: Where the dream begins; it does not change, so that other actions can follow it.
        actions: The actions that follow; `None` for unlabelled video.
        horizon: Frames to dream.
        horizons: Frames to keep, counted from 1.
        num_steps: Denoising steps per frame.
        temperature: Scale of the noise; by default that of the world model.
        advance: Called after each frame with the number of streams.
    """
    actions, kept = None if actions is None else actions[:, :horizon], []
    options = {"num_frames": horizon, "num_steps": num_steps, "temperature": temperature}
    dreamed = stream.branch().roll(actions, **options)
    for number, observation in enumerate(dreamed, start=1):
        if number in horizons:
            kept.append(observation.frames.cpu())
        advance(len(stream))
    return torch.stack(kept, dim=1)


def read_for(world: WorldModel, source: EpisodeSource, windows: Sequence[Window], *, horizon: int) -> Clip:
    """Read the windows, without the actions or states that the world model does not use."""
    clip = read_windows(source, windows, horizon=horizon, stride=world.stride)
    actions = clip.actions if world.action_dim else None
    return replace(clip, actions=actions, states=clip.states if world.state_dim else None)


@dataclass(frozen=True)
class Recorded:
    """The recorded frames of a batch of windows.

    Attributes:
        frames: All the frames of the windows, context first.
        truth: The frames at the horizons.
        last: The last context frame.
        view_mask: False where a camera is missing; `None` means all are present.
    """

    frames: UInt8[Tensor, "b t v H W 3"]
    truth: UInt8[Tensor, "b h v H W 3"]
    last: UInt8[Tensor, "b v H W 3"]
    view_mask: Bool[Tensor, "b v"] | None


class DreamComparison:
    """Scores of a world model's dreams on windows of a data source; fills `table`.

    Args:
        world: The world model.
        source: Held-out episodes.
        horizon: Frames to dream.
        horizons: Where to compare, counted from 1.
        num_steps: Denoising steps per frame.
        alterations: The altered actions to dream beside the recorded ones.
        rivals: World models whose dreams also add to the mask of the masked PSNR.
        matcher: Says whether the cameras fit together; `None`: this is not measured.
        perceptual: A perceptual distance that is measured in addition, or `None`.
        every_frame: Score all dreamed frames, too, for the means over the horizon.

    Attributes:
        table: The scores so far.
        lpips_reason: Why there is no LPIPS, or `None`.
        frames_per_window: Dreamed frames per window, over all the rollouts.
    """

    def __init__(
        self,
        world: WorldModel,
        source: EpisodeSource,
        *,
        horizon: int,
        horizons: Sequence[int],
        num_steps: int,
        alterations: Sequence[Alteration],
        rivals: Sequence[WorldModel],
        matcher: CrossViewMatcher | None = None,
        perceptual: VisibleDistance | None = None,
        every_frame: bool = False,
    ):
        self.world, self.source, self.rivals = world, source, tuple(rivals)
        self.horizon, self.horizons, self.num_steps = horizon, tuple(horizons), num_steps
        self.alterations = tuple(alterations)
        self.matcher, self.codes = matcher, {"dream": [], "recording": []}
        self.table, self.perceptual = ScoreTable(), perceptual
        self.every = range(1, horizon + 1) if every_frame else None
        self.regions = [valid_region(mask) for mask in source.pixel_mask]
        self.lpips_reason = _lpips_reason(source.views, self.regions)
        self.lpips = None if self.lpips_reason else Lpips(world.device)
        rollouts = 1 + len(self.rivals) + (len(self.alterations) if world.action_dim else 0)
        self.frames_per_window = horizon * rollouts

    def add(
        self,
        windows: Sequence[Window],
        partners: Sequence[Window] | None,
        seeds: Sequence[int],
        advance: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Dream and score the next windows.

        Args:
            windows: The next windows.
            partners: Where their shuffled actions come from; `None` with a single episode.
            seeds: Noise seed of each window, the same under all the actions.
            advance: Called with the number of frames dreamed since the last call.
        """
        clip = self._read(windows)
        context, actions = context_of(clip), _future(clip)

        def rolled(stream: Stream, actions: Tensor | None, kept: Sequence[int] = self.horizons) -> Tensor:
            options = {"horizon": self.horizon, "horizons": kept, "num_steps": self.num_steps, "advance": advance}
            return dream(stream, actions, **options)

        at = [LAST_CONTEXT + horizon for horizon in self.horizons]
        last = clip.frames[:, LAST_CONTEXT]
        recorded = Recorded(clip.frames, clip.frames[:, at], last, clip.view_mask)
        start = self.world.stream(context, seeds=seeds)
        dreamed = rolled(start, actions, self.every or self.horizons)
        if self.every:
            self._score_means(recorded, dreamed)
            dreamed = dreamed[:, [horizon - 1 for horizon in self.horizons]]
        copied = repeat(last, "b v H W c -> b h v H W c", h=len(at))
        rivals = [rolled(rival.stream(context, seeds=seeds), actions) for rival in self.rivals]
        self._score_cameras(recorded, dreamed, copied, rivals)
        self._score_objects(recorded, {("objects",): dreamed, ("copy_last", "objects"): copied})
        if self.matcher is not None:
            for name, frames in (("dream", dreamed), ("recording", recorded.truth)):
                self.codes[name].append(self.matcher.codes(frames, recorded.view_mask))
        for alteration in self.alterations:
            altered = self._altered(alteration, context, actions, partners)
            other = None if altered is None else rolled(start, altered)
            self._score_gap(alteration, recorded, dreamed, other)

    def finish(self, episodes: Int64[np.ndarray, "n"]) -> None:
        """Compare the cameras of every window with those of all the others; called after the last `add`.

        Args:
            episodes: The episode of every window.
        """
        if self.matcher is None:
            return
        for name, parts in self.codes.items():
            shares = agreement(torch.cat(parts), torch.as_tensor(episodes))
            self.table.add_horizons(("cross_view", name, "share"), self.horizons, shares)

    def _read(self, windows: Sequence[Window]) -> Clip:
        return read_for(self.world, self.source, windows, horizon=self.horizon)

    def _altered(
        self,
        alteration: Alteration,
        context: Clip,
        actions: Float32[Tensor, "b m a"] | None,
        partners: Sequence[Window] | None,
    ) -> Float32[Tensor, "b m a"] | None:
        if actions is None:
            return None
        if alteration == "shuffled":
            return None if partners is None else _future(self._read(partners))
        hold = holding_actions(
            actions,
            None if context.states is None else context.states[:, -1],
            relative_to=self.world.relative_to,
            stride=self.world.stride,
        )
        return hold if alteration == "hold" else mirrored_actions(actions, hold)

    def _score_cameras(
        self,
        recorded: Recorded,
        dreamed: UInt8[Tensor, "b h v H W 3"],
        copied: UInt8[Tensor, "b h v H W 3"],
        rivals: Sequence[UInt8[Tensor, "b h v H W 3"]],
    ) -> None:
        coded = recoded(self.world.codec, recorded.truth.to(self.world.device)).cpu()
        models = {"cameras": dreamed, "copy_last": copied}
        models |= {f"rival {index}": frames for index, frames in enumerate(rivals)}
        for index, view in enumerate(self.source.views):
            scores = self._pixel_scores(index, recorded, models)
            for kind in ("cameras", "copy_last"):
                for metric, values in scores[kind].items():
                    shown = _shown(values, recorded, index)
                    self.table.add_horizons((kind, view, metric), self.horizons, shown)
            for metric in GAINS:
                gain = scores["cameras"][metric] - scores["copy_last"][metric]
                self.table.add_horizons(("gain", view, metric), self.horizons, _shown(gain, recorded, index))
            scores = self._pixel_scores(index, recorded, {"codec": coded})
            for metric, values in scores["codec"].items():
                shown = _shown(values, recorded, index)
                self.table.add(("codec", view, metric), shown.nanmean(dim=1))

    def _score_means(self, recorded: Recorded, dreamed: UInt8[Tensor, "b m v H W 3"]) -> None:
        """Means over all dreamed frames of every window."""
        truth = recorded.frames[:, CONTEXT_FRAMES:]
        for index, view in enumerate(self.source.views):
            columns: dict[tuple[str, str], list[Tensor]] = {}
            for part, dreamt in zip(truth.split(SCORED_AT_ONCE, 1), dreamed.split(SCORED_AT_ONCE, 1), strict=True):
                copied = recorded.last[:, None].expand_as(part)
                models = {"cameras": dreamt, "copy_last": copied}
                for kind, metrics in self._pixel_scores(index, replace(recorded, truth=part), models).items():
                    for metric, values in metrics.items():
                        columns.setdefault((kind, metric), []).append(_shown(values, recorded, index))
            for (kind, metric), values in columns.items():
                self.table.add(("mean", kind, view, metric), torch.cat(values, dim=1).nanmean(dim=1))

    def _pixel_scores(
        self, index: int, recorded: Recorded, models: Mapping[str, UInt8[Tensor, "b h v H W 3"]]
    ) -> dict[str, dict[str, Float32[Tensor, "b h"]]]:
        return pixel_scores(
            self._crop(recorded.truth, index),
            {name: self._crop(frames, index) for name, frames in models.items()},
            self._crop(recorded.last, index),
            self.lpips,
            self.perceptual,
        )

    def _crop(self, frames: UInt8[Tensor, "*b v H W 3"], view: int) -> UInt8[Tensor, "*b h w 3"]:
        """One camera without its letterbox padding."""
        rows, columns = self.regions[view]
        return frames[..., view, rows, columns, :]

    def _score_objects(
        self, recorded: Recorded, models: Mapping[tuple[str, ...], UInt8[Tensor, "b h v H W 3"]]
    ) -> None:
        robot_type = self.source.robot_type
        if not object_names(robot_type) or object_view(robot_type) not in self.source.views:
            return
        view = self.source.views.index(object_view(robot_type))
        truth = find_objects(robot_type, recorded.frames[:, :, view])
        masks = object_masks(robot_type, recorded.frames[:, :, view])
        for path, frames in models.items():
            found, shapes = (find(robot_type, frames[:, :, view]) for find in (find_objects, object_masks))
            for name, track in found.items():
                scores = object_scores(truth[name], track, LAST_CONTEXT, self.horizons)
                known, dreamt = torch.as_tensor(masks[name]), torch.as_tensor(shapes[name])
                at = [LAST_CONTEXT + horizon for horizon in self.horizons]
                shape = shape_scores(known[:, at], dreamt, known.sum((2, 3)).float().median(dim=1).values)
                for metric, values in (*scores.items(), *shape.items()):
                    self.table.add_horizons((*path, name, metric), self.horizons, values)

    def _score_gap(
        self,
        alteration: Alteration,
        recorded: Recorded,
        dreamed: UInt8[Tensor, "b h v H W 3"],
        other: UInt8[Tensor, "b h v H W 3"] | None,
    ) -> None:
        gaps = []
        for index, view in enumerate(self.source.views):
            gap = torch.full(dreamed.shape[:2], torch.nan)
            if other is not None:
                truth = self._crop(recorded.truth, index)
                gap = psnr(self._crop(dreamed, index), truth)
                gap = gap - psnr(self._crop(other, index), truth)
            gaps.append(_shown(gap, recorded, index))
            path = ("action_following", alteration, "cameras", view, "psnr_gap")
            self.table.add_horizons(path, self.horizons, gaps[-1])
        mean = torch.stack(gaps).nanmean(dim=0)
        self.table.add_horizons(("action_following", alteration, "psnr_gap"), self.horizons, mean)


def _future(clip: Clip) -> Float32[Tensor, "b m a"] | None:
    """The actions after the context."""
    return None if clip.actions is None else clip.actions[:, LAST_CONTEXT:]


def _shown(values: Float32[Tensor, "b h"], recorded: Recorded, view: int) -> Float32[Tensor, "b h"]:
    """NaN where the camera is missing."""
    if recorded.view_mask is None:
        return values
    return torch.where(recorded.view_mask[:, [view]], values, torch.nan)


def _lpips_reason(views: Sequence[str], regions: Sequence[tuple[slice, slice]]) -> str | None:
    for view, (rows, columns) in zip(views, regions, strict=True):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if min(height, width) < LPIPS_MIN_SIDE:
            return (
                f"LPIPS is left out: camera {view} has {height}x{width} pixels, its AlexNet trunk "
                f"needs {LPIPS_MIN_SIDE} a side"
            )
    return Lpips.missing_reason()
