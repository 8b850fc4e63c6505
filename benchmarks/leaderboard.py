"""World models of one task in a table that a laptop makes again: fidelity, action gap, ranking of policies, speed.

```
worldmodel record pusht-position --seed 2 --episodes 100 --out data/pusht-position-heldout
python benchmarks/leaderboard.py --data data/pusht-position-heldout --out runs/leaderboard \
    --worlds ours checkpoints/pusht copying copy-last:checkpoints/pusht theirs my_module:TheirWorld
```

A world is a folder, or anything with a stream (docs/extend/rival.md). Every world dreams the same windows of recorded
episodes under their actions and under those of other episodes, and the same policies act in all of them, from the same
starts. Their success is compared with that in the simulator, which `real.json` beside the policies holds;
`--real-trials` makes it anew. Killed, the command continues where it stood.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from gymnasium.vector import AutoresetMode
from jaxtyping import Float32, UInt8
from leaderboard_worlds import COPY, HOLD, Entrant, context_for, load_entrant
from ranking import TASKS
from torch import Tensor

from policy_eval.evaluation import evaluate
from policy_eval.judge.find import load_judge
from policy_eval.policies.find import find_policies, load_policy
from policy_eval.ranking.outcomes import read_outcomes
from policy_eval.ranking.rank import rank
from policy_eval.ranking.setup import TrialSetup
from policy_eval.scores import Scores
from worldmodel.data import EpisodeCache, EpisodeSource, open_episodes
from worldmodel.dreams.context import CONTEXT_FRAMES, check_views, context_of
from worldmodel.dreams.env import DreamEnv
from worldmodel.dreams.starts import Starts
from worldmodel.envs import find_objects, object_names, object_view
from worldmodel.fidelity.metrics import masked_psnr
from worldmodel.fidelity.scores import ScoreTable, object_scores
from worldmodel.fidelity.windows import Window, evenly_spaced_windows, read_windows, shuffled_partners, trained_episodes
from worldmodel.files import read_object, write_json
from worldmodel.model.card import table
from worldmodel.model.precision import choose_device
from worldmodel.model.psnr import psnr
from worldmodel.processes import single_thread
from worldmodel.training.log import CLOCKS

HORIZONS = (10, 25)
"""Frames after the context at which a dream is compared with the recording."""
OURS = {"ours": "checkpoints/pusht", "copying": f"{COPY}:checkpoints/pusht", "no-action": f"{HOLD}:checkpoints/pusht"}


@dataclass(frozen=True)
class Leaderboard:
    """Which worlds are measured, on what."""

    data: Path
    """Recorded episodes of the task that no world was trained on, with the reset seeds of the real trials."""
    out: Path
    """Folder of what was measured, and of `leaderboard.json`."""
    worlds: dict[str, str] = field(default_factory=lambda: OURS)
    """World models by name, as in ours checkpoints/pusht theirs my_module:TheirWorld. The controls copy-last:FOLDER and
    hold:FOLDER copy the last frame, and hide all actions from the world model."""
    only: tuple[str, ...] = ()
    """Names of the worlds to measure now; all by default."""
    task: str = "pusht-position"
    """Task of `benchmarks/ranking.py`."""
    windows: int = 24
    """Episodes of which a window is dreamed, the first ones."""
    policies: tuple[str, ...] = ()
    """Names of the policies that act; all of the task by default. At least 5 are needed for a correlation."""
    episodes: int = 100
    """Starts of each policy, the first episodes of the data."""
    real_trials: bool = False
    """Let the policies act in the simulator, too, instead of reading what they did there."""
    num_steps: int = 2
    """Denoising steps per frame."""
    batch: int = 16
    """Streams side by side."""
    clock: Literal["wall", "cpu"] = "wall"
    """Clock of the frames per second; the CPU time of the process is not disturbed by other programs."""
    seed: int = 0
    """Seed of the noise and of the shuffling."""
    device: str = "auto"
    """Where our networks run: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""

    @property
    def folder(self) -> Path:
        """The policies of the task."""
        return Path("checkpoints/policies") / self.task

    @property
    def judge(self) -> Path:
        """The judge of the task."""
        return Path("checkpoints/judges") / self.task


def open_data(config: Leaderboard, name: str, world: Entrant) -> EpisodeSource:
    """The recordings as the world reads them.

    Raises:
        ValueError: They do not fit, or the world was trained on them.
    """
    source = EpisodeCache(open_episodes(config.data, tuple(world.size), tuple(world.views)))
    check_views(world, source)
    noted = getattr(world, "train_data", [])
    known = trained_episodes(noted, source)
    if known:
        raise ValueError(f"{config.data}: the world {name} was trained on {len(known)} of its {len(source)} episodes")
    return source


def dreamed(
    world: Entrant, source: EpisodeSource, windows: Sequence[Window], actions: Sequence[Window], config: Leaderboard
) -> tuple[UInt8[Tensor, "b m v H W 3"], float]:
    """Dream windows under the actions of others (or their own ones), and say how many seconds the steps took."""
    settings = {"horizon": max(HORIZONS), "stride": world.stride}
    context = context_of(context_for(world, read_windows(source, windows, **settings)))
    commands = read_windows(source, actions, **settings).actions[:, CONTEXT_FRAMES - 1 :]
    stream = world.stream(context, seeds=[config.seed + window.episode for window in windows])
    clock, frames = CLOCKS[config.clock], []
    begin = clock()
    for step in range(max(HORIZONS)):
        frames.append(stream.step(commands[:, step], num_steps=config.num_steps).frames.cpu())
    return torch.stack(frames, dim=1), clock() - begin


def measure_dreams(config: Leaderboard, name: str, world: Entrant, source: EpisodeSource) -> dict[str, Any]:
    """Fidelity, action gap and speed; made once."""
    file = config.out / name / "dreams.json"
    if file.exists():
        return read_object(file)
    long = (CONTEXT_FRAMES + max(HORIZONS)) * world.stride
    episodes = [e for e in range(len(source)) if source.lengths[e] >= long][: config.windows]
    if len(episodes) < 2:
        raise ValueError(f"{config.data}: {len(episodes)} episodes have {long} frames, at least 2 are needed")
    settings = {"starts": 1, "horizon": max(HORIZONS), "stride": world.stride, "episodes": episodes}
    windows = evenly_spaced_windows(source, **settings)
    partners, scores, seconds = shuffled_partners(windows, seed=config.seed), ScoreTable(), 0.0
    for first in range(0, len(windows), config.batch):
        part = slice(first, first + config.batch)
        truth = read_windows(source, windows[part], horizon=max(HORIZONS), stride=world.stride).frames
        mine, taken = dreamed(world, source, windows[part], windows[part], config)
        other, _ = dreamed(world, source, windows[part], partners[part], config)
        add_scores(scores, source, truth, mine, other)
        seconds += taken
    found = scores.summary(np.array([window.episode for window in windows]), seed=config.seed)
    found["frames_per_second"] = len(windows) * max(HORIZONS) / seconds
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, found)
    return found


def add_scores(
    scores: ScoreTable,
    source: EpisodeSource,
    truth: UInt8[Tensor, "b t v H W 3"],
    mine: UInt8[Tensor, "b m v H W 3"],
    other: UInt8[Tensor, "b m v H W 3"],
) -> None:
    """Score dreams under their own actions, and the loss under those of others; means over cameras and objects."""
    late = CONTEXT_FRAMES - 1
    at = [horizon - 1 for horizon in HORIZONS]
    real, last = truth[:, [late + horizon for horizon in HORIZONS]], truth[:, [late]].expand_as(truth[:, : len(at)])
    masked = masked_psnr(real, {"dream": mine[:, at]}, last)["dream"]
    scores.add_horizons(("masked_psnr",), HORIZONS, masked.nanmean(dim=2))
    gap = psnr(mine[:, at], real) - psnr(other[:, at], real)
    scores.add_horizons(("action_gap",), HORIZONS, gap.mean(dim=2))
    scores.add_horizons(("object_error_px",), HORIZONS, object_errors(source, truth, mine[:, at]))


def object_errors(
    source: EpisodeSource, truth: UInt8[Tensor, "b t v H W 3"], frames: UInt8[Tensor, "b h v H W 3"]
) -> Float32[Tensor, "b h"]:
    """Mean position error of the objects that can be found, px of 64 (a lost one counts as 32); NaN without any."""
    robot = source.robot_type
    if not object_names(robot) or object_view(robot) not in source.views:
        return torch.full(frames.shape[:2], torch.nan)
    view = source.views.index(object_view(robot))
    real, seen = (find_objects(robot, each[:, :, view]) for each in (truth, frames))
    errors = [object_scores(real[name], seen[name], CONTEXT_FRAMES - 1, HORIZONS)["error_px"] for name in seen]
    return torch.stack(errors).nanmean(dim=0)


def dream_trials(config: Leaderboard, name: str, world: Entrant, setup: TrialSetup) -> dict[str, Scores]:
    """Success of every policy in the dreams of a world; made once."""
    found, env = {}, None
    for policy, spec in chosen_policies(config).items():
        file = config.out / name / "trials" / f"{policy}.json"
        if not file.exists():
            env = dream_env(config, world, setup) if env is None else env
            scores = evaluate(load_policy(spec), env, name=policy, horizon=setup.horizon)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, scores.to_json())
            print(f"{name}: {policy} {scores.mean:.2f}", flush=True)
        found[policy] = Scores.from_json(read_object(file))
    return found


def dream_env(config: Leaderboard, world: Entrant, setup: TrialSetup) -> DreamEnv:
    """The dreams in which policies act, with the spaces of the simulator."""
    judge = load_judge(config.judge, choose_device(config.device), views=tuple(world.views), size=tuple(world.size))
    source = open_episodes(config.data, tuple(world.size), tuple(world.views))
    settings = {"horizon": setup.horizon, "num_steps": config.num_steps, "seed": config.seed}
    settings |= {"like": setup.simulators.envs[0], "autoreset_mode": AutoresetMode.DISABLED}
    return DreamEnv(world, Starts(source, range(config.episodes)), judge, num_envs=config.batch, **settings)


def chosen_policies(config: Leaderboard) -> dict[str, str | Path]:
    """The policies that act, by name.

    Raises:
        ValueError: There is none of a name.
    """
    known = find_policies([config.folder])
    unknown = sorted(set(config.policies) - set(known))
    if unknown:
        raise ValueError(f"--policies: {config.folder} has no {unknown[0]}; it has {', '.join(known)}")
    return {name: spec for name, spec in known.items() if not config.policies or name in config.policies}


def real_trials(config: Leaderboard, setup: TrialSetup) -> dict[str, Scores]:
    """Success of every policy in the simulator: stored, or made once."""
    if not config.real_trials:
        return read_outcomes(config.folder / "real.json", chosen_policies(config))
    found = {}
    for policy, spec in chosen_policies(config).items():
        file = config.out / "real" / f"{policy}.json"
        if not file.exists():
            scores = evaluate(load_policy(spec), setup.simulators, name=policy, horizon=setup.horizon)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, scores.to_json())
        found[policy] = Scores.from_json(read_object(file))
    return found


def rows(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The leaderboard as a Markdown table, best correlation first; a dash where nothing was measured."""
    head = ["world"]
    for label in ("masked PSNR, dB", "objects, px", "action gap, dB"):
        head += [f"{label}, at {horizon}" for horizon in HORIZONS]
    head += ["r over policies", "frames/s"]
    order = sorted(results, key=lambda name: -_known(results[name]["pearson"]))
    lines = []
    for name in order:
        dreams, pearson = results[name]["dreams"], results[name]["pearson"]
        line = [name]
        for metric in ("masked_psnr", "object_error_px", "action_gap"):
            ends = dreams["intervals"][metric]
            line += [_cell(dreams[metric][str(h)], ends[str(h)], "{:.1f}") for h in HORIZONS]
        between = None if pearson is None else (pearson["low"], pearson["high"])
        line.append(_cell(None if pearson is None else pearson["value"], between, "{:.2f}"))
        lines.append([*line, f"{dreams['frames_per_second']:.0f}"])
    return table(head, lines)


def _known(pearson: Mapping[str, float] | None) -> float:
    return -2.0 if pearson is None else pearson["value"]


def _cell(value: float | None, interval: Sequence[float] | None, pattern: str) -> str:
    if value is None:
        return "-"
    ends = "" if interval is None else " [" + ", ".join(pattern.format(end) for end in interval) + "]"
    return pattern.format(value) + ends


def check_settings(config: Any, free: Sequence[str] = ("worlds", "only", "out", "device")) -> None:
    """Raise a `ValueError` where `out` holds figures of other settings; those named in `free` may differ."""
    mine = {name: str(value) for name, value in asdict(config).items() if name not in free}
    file = config.out / "settings.json"
    if file.exists():
        theirs = read_object(file)
        for name, value in mine.items():
            if theirs.get(name) != value:
                raise ValueError(f"{file}: {name} is {theirs.get(name)}, now it is {value}; choose another --out")
    config.out.mkdir(parents=True, exist_ok=True)
    write_json(file, mine)


def measure_world(config: Leaderboard, name: str, spec: str, setup: TrialSetup, real: Mapping[str, Scores]) -> dict:
    """All figures of one world."""
    world = load_entrant(spec, choose_device(config.device))
    dreams = measure_dreams(config, name, world, open_data(config, name, world))
    ranking = rank(dream_trials(config, name, world, setup), real, seed=config.seed)
    return {"dreams": dreams, "pearson": ranking.to_json()["agreement"]["pearson"], "ranking": ranking.to_json()}


def main(config: Leaderboard) -> None:
    """Measure every world and print the table.

    Raises:
        ValueError: A task or a world has no such name, or the folder holds figures of other settings.
    """
    if config.task not in TASKS:
        raise ValueError(f"--task {config.task}: known are {', '.join(TASKS)}")
    unknown = sorted(set(config.only) - set(config.worlds))
    if unknown:
        raise ValueError(f"--only: there is no world {unknown[0]}; there are {', '.join(config.worlds)}")
    check_settings(config)
    env, shipped, horizon = TASKS[config.task]
    begin = time.monotonic()
    setup = TrialSetup(shipped, config.judge, config.data, config.episodes, horizon, real=env, seed=config.seed)
    with single_thread():
        real = real_trials(config, setup)
        results = {
            name: measure_world(config, name, spec, setup, real)
            for name, spec in config.worlds.items()
            if not config.only or name in config.only
        }
    for result in results.values():
        if result["pearson"]["value"] is None:
            result["pearson"] = None
    write_json(config.out / "leaderboard.json", results)
    trials = f"{config.episodes} dreams of each of {len(real)} policies"
    print(f"\n## {config.task}: {config.windows} windows, {trials}\n\n{rows(results)}\n")
    print(f"{time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main(tyro.cli(Leaderboard, description=__doc__))
