"""Evaluations of a post-training run: keep a world model that is not worse, and write tables, curves and videos."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from torch import Tensor

from rl_posttrain.posttraining.changes import changes, meaning
from rl_posttrain.posttraining.config import PosttrainConfig
from rl_posttrain.posttraining.curves import plot_run
from rl_posttrain.posttraining.guards import HeldOut, held_back, means, read_held_out, score
from rl_posttrain.posttraining.page import write_page
from rl_posttrain.rewards.mix import RewardMix
from rl_posttrain.rewards.reward import Rollout
from worldmodel.data import EpisodeSource
from worldmodel.data.video.write import write_video
from worldmodel.dreams.context import CONTEXT_FRAMES
from worldmodel.dreams.film import side_by_side
from worldmodel.fidelity.cross_view.matcher import CrossViewMatcher
from worldmodel.files import write_json
from worldmodel.training.log import RunLog, Table
from worldmodel.training.share import figures_over_processes, from_first
from worldmodel.world_model import WorldModel

VIDEOS = 2


def is_over(kept: Sequence[bool], patience: int) -> bool:
    """Whether the last `patience` evaluations kept no world model; never with 0. The first one is always kept."""
    return bool(patience) and not any(kept[-patience:])


def is_kept(values: Sequence[Sequence[float]], patience: int) -> bool:
    """Whether the world model of the last evaluation is saved; always if `patience` is 0.

    It is saved unless it is worse than the best one so far: unless its values are higher by more than one standard
    error of the paired difference. Without this allowance, the noise of a few windows would decide which world model
    is kept. It is counted from the best one, so worse and worse world models cannot follow one another.

    Args:
        values: The unrewarded measure on every window (lower is better; NaN where it cannot be measured), for every
            evaluation so far. Windows on which it is always measured count; if there is none, all are kept.
        patience: As in the settings.
    """
    measured = np.isfinite(values).all(axis=0)
    known = np.asarray(values)[:, measured]
    if not patience or not measured.any():
        return True
    difference = known[-1] - known[int(np.argmin(known.mean(axis=1)))]
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return bool(difference.mean() <= error)


class Keeper:
    """Evaluates, keeps the last world model that is not worse, and writes the tables, the curves and the videos.

    Args:
        config: Configuration of the run.
        base: The world model before post-training.
        source, held_out: The data set and its evaluation episodes.
        rewards: The rewards of the run.
        log: Log of the run.
        matcher: Says whether the cameras fit together; a world model whose cameras do so less than before is not kept.
    """

    def __init__(
        self,
        config: PosttrainConfig,
        base: WorldModel,
        source: EpisodeSource,
        held_out: range,
        rewards: RewardMix,
        log: RunLog,
        matcher: CrossViewMatcher | None = None,
    ):
        self.config, self.base, self.rewards, self.log = config, base, rewards, log
        self.matcher = matcher
        self.main = log.accelerator.is_main_process
        self.held_out: HeldOut = read_held_out(
            base, source, held_out, horizon=config.validation_horizon, starts=config.validation_starts
        )
        if self.main:
            self.updates = Table(config.out / "updates.jsonl", log.step)
            self.evaluations = Table(config.out / "evaluations.jsonl", log.step + int(log.step > 0))
        self.stopped = self._agree_to_stop()

    def _agree_to_stop(self) -> bool:
        """Whether the last `patience` evaluations, which the first process makes, were worse in the held-back one."""
        return from_first(lambda: is_over([row["kept"] for row in self.evaluations.rows], self.config.patience))

    def record(self, loss: Tensor, parts: Mapping[str, Tensor], row: Mapping[str, float], factor: float) -> None:
        """Write down one update."""
        row = figures_over_processes(row)
        values = figures_over_processes({name: float(part) for name, part in parts.items()})
        reward = f"reward {row['reward']:.3f}" if "reward" in row else ""
        if reward and self.main and self.updates.rows:
            reward += f" (first {self.updates.rows[0]['reward']:.3f})"
        step = self.log.step
        self.log.advance(loss, parts, frames=self.config.frames, factor=factor, note=reward)
        if self.main:
            self.updates.add({"step": step, **row, **values})
        if step % 10 == 0 and row:
            self.log.scalars({f"update/{name}": value for name, value in row.items()})

    def evaluate(self, world: WorldModel) -> None:
        """Let the first process score the held-out episodes, and save the world model where it is to be kept."""
        if self.main:
            self._measure(world)
        world.train()
        self.stopped = self._agree_to_stop()

    def _measure(self, world: WorldModel) -> None:
        world.eval()
        scores, _ = self._score(world)
        found = means(scores)
        name, each = held_back(scores, self.rewards.names)
        value, windows = float(each.nanmean()), each.tolist()
        guarded = {"held_back_windows": windows}
        if "cross_view" in scores:
            guarded["cross_view_windows"] = (1 - scores["cross_view"]).tolist()
        kept = all(
            is_kept([*(row[guard] for row in self.evaluations.rows), values], self.config.patience)
            for guard, values in guarded.items()
        )
        row = {"step": self.log.step, "seconds": self.log.seconds, **found}
        self.evaluations.add({**row, "held_back": value, "held_back_name": name, **guarded, "kept": kept})
        self.log.scalars({f"held_out/{k}": v for k, v in found.items()})
        if kept:
            world.save(self.config.out)
        plot_run(self.updates.rows, self.evaluations.rows, self.config.out / "curve.png")
        print(
            f"update {self.log.step}: held-out {name} {value:.3f}, PSNR {found['psnr']:.2f} dB, "
            f"sharpness {found['sharpness']:.2f}, motion {found['motion']:.2f}, "
            f"response {found['response']:.2f}"
            + (f", cameras agree {found['cross_view']:.3f}" if "cross_view" in found else "")
        )

    def finish(self) -> None:
        """Compare the kept world model with the one before: `changes.json`, videos, and the page `report.html`."""
        if not self.main:
            return
        before, dreamed = self._score(self.base)
        after, better = self._score(WorldModel.load(self.config.out, self.base.device))
        found = changes(before, after, self.held_out.episodes, seed=self.config.seed)
        write_json(self.config.out / "changes.json", {"format": 1, "changes": [asdict(change) for change in found]})
        videos = self._film({"before": dreamed, "after": better})
        sentences = meaning(found, self.rewards.names, self.kept)
        write_page(self.introduction, sentences, found, videos, self.config.out)
        print("\n".join([*sentences, str(self.config.out / "report.html")]))

    @property
    def kept(self) -> int:
        """The update whose world model is saved: the last one that is not worse than the best one."""
        return [row["step"] for row in self.evaluations.rows if row["kept"]][-1]

    @property
    def introduction(self) -> str:
        """What was done, in one sentence."""
        number = len(set(self.held_out.episodes))
        return (
            f"{self.config.objective}, {self.log.step} updates in {self.log.seconds / 60:.1f} minutes. The kept world "
            f"model is that of update {self.kept}; it was measured on {len(self.held_out.episodes)} windows of "
            f"{self.held_out.horizon} frames from {number} held-out episode{'s' if number > 1 else ''}."
        )

    def _score(self, world: WorldModel) -> tuple[dict[str, Tensor], Rollout]:
        return score(
            world,
            self.held_out,
            rewards=self.rewards.rewards,
            dynamics=self.rewards.dynamics,
            matcher=self.matcher,
            num_steps=self.config.num_steps,
            seed=self.config.seed,
        )

    def _film(self, dreams: Mapping[str, Rollout]) -> list[Path]:
        """Write the first held-out windows: truth, before, after."""
        clip, files = self.held_out.clip, []
        for index in range(min(VIDEOS, len(clip.frames))):
            rows = {"truth": clip.frames[index, CONTEXT_FRAMES:]}
            rows |= {name: each.imagined.frames[index, 1:] for name, each in dreams.items()}
            files.append(self.config.out / "videos" / f"held_out_{index}.mp4")
            write_video(files[-1], side_by_side(rows, self.base.views), self.base.fps / self.base.stride)
        return files
