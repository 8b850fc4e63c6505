"""The whole package in one go: record, train, dream, measure, and a report to look at.

Every stage is a function that reads and writes files below `QuickstartConfig.out` and adds its part
to the report. `STAGES` is the list of them, each with the seconds it should take on two cores.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from demos.quickstart.improvement import improve_policy, missing
from demos.quickstart.improvement import meaning as real_meaning
from demos.quickstart.log import logged
from demos.quickstart.machine import machine
from demos.quickstart.posttraining import posttrain_briefly
from demos.quickstart.ranking import nothing_to_rank, rank_three
from policy_eval.ranking.meaning import meaning as ranking_meaning
from policy_eval.ranking.report import LEADERBOARD, draw_scatter, leaderboard, remarks
from rl_posttrain.posttraining.changes import meaning as change_meaning
from worldmodel.data import open_episodes
from worldmodel.data.video.write import write_video
from worldmodel.display.html import Report
from worldmodel.display.plots import empty_figure
from worldmodel.display.ranges import Count, Positive, Weight, check_ranges
from worldmodel.dreams.film import compare, dream_episode
from worldmodel.envs.record import RecordConfig, record
from worldmodel.fidelity.meaning import meaning as fidelity_meaning
from worldmodel.fidelity.measure import measure_fidelity
from worldmodel.fidelity.report import plot_fidelity
from worldmodel.files import shipped, write_atomically, write_json
from worldmodel.model.folder import check_out, find_optional
from worldmodel.model.precision import choose_device, command_device
from worldmodel.training.config import PretrainConfig
from worldmodel.training.pretrain import pretrain
from worldmodel.world_model import WorldModel

TRAIN_SEED, HELD_OUT_SEED = 20, 30
"""Seeds of the two recordings; the shipped checkpoint saw no episode of either."""
FEW = 8
"""So many episodes of PushT are recorded in less time than further processes take to start."""


@dataclass(frozen=True)
class QuickstartConfig:
    """Record PushT, train, dream, measure, improve; the defaults take nine to fourteen minutes."""

    out: Path = Path("runs/quickstart")
    """Folder for data, world model, videos and the report."""
    world: str | Path = "checkpoints/pusht"
    """World model to continue from; without one, training starts from nothing."""
    episodes: Count = 60
    """Recorded episodes to train on."""
    held_out_episodes: Count = 8
    """Recorded episodes that are only dreamed and measured."""
    train_minutes: Positive = 2.5
    """Minutes of training."""
    train_steps: Count = 100_000
    """Maximum number of training steps; training ends earlier if the minutes are over."""
    horizon: Count = 50
    """Dreamed frames per window."""
    videos: Count = 3
    """Held-out episodes shown as videos."""
    posttrain_minutes: Positive = 1.0
    """Minutes of post-training; it ends after --train-steps updates at the latest."""
    policy: str | Path = "checkpoints/policies/pusht-position/demos-150"
    """Policy to improve in imagination; without one, this stage is left out."""
    judge: str | Path = "checkpoints/judges/pusht-position"
    """Judge of those dreams."""
    policies: Path = Path("checkpoints/policies/pusht-position")
    """Graded policies, three of which are ranked; without them, this stage is left out."""
    rank_episodes: Count = 10
    """Number of dreamed trials, and of real trials, of each policy."""
    imagine_minutes: Positive = 1.0
    """Minutes of imagination."""
    trials: Count = 30
    """Real trials of the policy before and after."""
    overwrite: bool = False
    """Replace what an earlier quickstart left in --out; recordings that fit are kept."""
    install_seconds: Weight = 0.0
    """How long the installation took, for the table of timings."""
    device: str = "auto"
    """Where the networks run: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""

    @property
    def start(self) -> Path | None:
        """Folder of the world model to continue from; `None` where there is none."""
        return find_optional(self.world, "world.json")

    @property
    def train_data(self) -> Path:
        """Episodes to train on."""
        return self.out / "data" / "train"

    @property
    def held_out_data(self) -> Path:
        """Episodes to dream and measure."""
        return self.out / "data" / "held_out"

    @property
    def trained(self) -> Path:
        """The trained world model."""
        return self.out / "world"


Stage = Callable[[QuickstartConfig, Report], None]


def record_stage(config: QuickstartConfig, report: Report) -> None:
    """Record PushT: episodes to train on, and others, with other reset seeds, to measure on."""
    for episodes, seed, out in (
        (config.episodes, TRAIN_SEED, config.train_data),
        (config.held_out_episodes, HELD_OUT_SEED, config.held_out_data),
    ):
        workers = 0 if episodes > FEW else 1
        record(RecordConfig("pusht", episodes=episodes, seed=seed, out=out, workers=workers))
    source = open_episodes(config.train_data)
    height, width = source.size
    report.heading("Data")
    report.text(
        f"{len(source)} episodes of PushT ({sum(source.lengths)} frames) to train on, "
        f"{config.held_out_episodes} with other reset seeds to measure on; cameras "
        f"{' and '.join(source.views)}, {width} x {height} pixels, {source.fps:g} frames/s."
    )


def train_stage(config: QuickstartConfig, report: Report) -> None:
    """Continue training from the shipped checkpoint, or start from nothing."""
    minutes = f"{config.train_minutes:g} minutes"
    if config.start is not None:
        words = (
            f"A few minutes on a CPU from nothing make a poor model. So this one started from "
            f"{config.world} and continued for {minutes} on the episodes just recorded."
        )
    else:
        words = (
            f"There is no checkpoint at {config.world}: this model was trained from nothing "
            f"for {minutes}. Expect a blurry dream."
        )
    print(words)
    pretrain(
        PretrainConfig(
            data=config.train_data,
            out=config.trained,
            minutes=config.train_minutes,
            steps=config.train_steps,
            relative_to={0: 0, 1: 1},
            validation_episodes=1,
            init=config.start,
            learning_rate=5e-5 if config.start is not None else 1e-3,
            overwrite=True,
            device=config.device,
        )
    )
    report.heading("Training")
    report.text(words)
    losses = np.loadtxt(config.trained / "losses.csv", delimiter=",", skiprows=1, ndmin=2)[:, 1]
    width = max(min(25, len(losses) // 3), 1)
    smooth = np.convolve(losses, np.full(width, 1 / width), mode="valid")
    steps = np.arange(len(losses))
    curves = {"loss": (steps, losses), f"mean of {width}": (steps[width - 1 :], smooth)}
    plot(curves, config.out / "loss.png", "optimiser step", "loss", logarithmic=True)
    report.picture(config.out / "loss.png", f"training loss over {len(losses)} steps")


def dream_stage(config: QuickstartConfig, report: Report) -> None:
    """Dream held-out episodes and show each below the truth."""
    torch.set_num_threads(1)  # two threads wait for each other on frames this small
    world = WorldModel.load(config.trained, choose_device(config.device))
    source = open_episodes(config.held_out_data, size=tuple(world.size), views=world.views)
    report.heading("Dreams")
    report.text(
        "Above: what the simulator showed. Below: what the world model dreamed from the eight frames "
        "before, under the recorded actions. It never saw these episodes."
    )
    folder = config.out / "videos"
    folder.mkdir(exist_ok=True)
    for episode in range(min(config.videos, len(source))):
        truth, dream = dream_episode(world, source, episode, horizon=config.horizon)
        file = folder / f"episode_{episode}.mp4"
        write_video(file, compare(truth, dream, world.views), world.fps / world.stride)
        report.video(file, f"held-out episode {episode}, {len(dream)} frames")


def measure_stage(config: QuickstartConfig, report: Report) -> None:
    """Measure the world model, and the one it started from, on the held-out episodes."""
    torch.set_num_threads(1)
    folders = {"after": config.trained}
    if config.start is not None:
        folders = {"before": config.start, **folders}
    measured = {}
    for name, folder in folders.items():
        world = WorldModel.load(folder, choose_device(config.device))
        source = open_episodes(config.held_out_data, size=tuple(world.size), views=world.views)
        measured[name] = measure_fidelity(
            world,
            source,
            horizon=config.horizon,
            starts=2,
            alterations=("shuffled",) if name == "after" else (),
            show_progress=True,
        )
    after = measured["after"]
    write_json(config.out / "fidelity.json", {**after, "before": measured.get("before")})
    plot_fidelity(after, config.out / "fidelity.png")
    view = next(iter(after["cameras"]))
    curves = {name: by_horizon(report_, view) for name, report_ in measured.items()}
    curves["copy last frame"] = by_horizon({"cameras": after["copy_last"]}, view)
    plot(curves, config.out / "psnr.png", "horizon, frames", f"PSNR of camera {view}, dB")
    report.heading("Fidelity")
    report.text(
        f"{after['metadata']['windows']} windows of {after['metadata']['episodes']} held-out "
        "episodes, 2 denoising steps per frame. These are few windows, not enough for a publication; "
        "worldmodel fidelity can measure on more."
    )
    report.meaning(fidelity_meaning(after), titled=False)
    report.table(*fidelity_rows(measured))
    report.picture(config.out / "psnr.png", "quality against horizon")
    report.picture(config.out / "fidelity.png", "every metric of the model after training", wide=True)


def rank_stage(config: QuickstartConfig, report: Report) -> None:
    """Rank three policies in dreams of PushT-Position, beside real trials from the same starts."""
    report.heading("Ranking")
    policies = shipped(config.policies)
    absent = nothing_to_rank(policies, config.judge)
    if absent is not None:
        print(absent)
        report.text(absent)
        return
    out = config.out / "ranking"
    rank_three(config.trained, policies, config.judge, out, episodes=config.rank_episodes, device=config.device)
    found = json.loads((out / "ranking.json").read_text())
    report.text(
        f"Three policies acted from the same {config.rank_episodes} starts in the dream, where a "
        "judge decided on success, and in the simulator. These few trials show how it works; the "
        "README has the measurement."
    )
    report.meaning(ranking_meaning(found), titled=False)
    report.table(LEADERBOARD, leaderboard(found))
    for line in remarks(found):
        report.text(line)
    draw_scatter(found, out / "scatter.png")
    report.picture(out / "scatter.png", "dreamed against real score, 95% intervals")
    for video in sorted((out / "videos").glob("*.mp4")):
        report.video(video, f"a trial whose dream (below) ended otherwise: {video.stem}")


def improve_stage(config: QuickstartConfig, report: Report) -> None:
    """Improve a cloned policy in dreams of PushT-Position, and try it for real before and after."""
    torch.set_num_threads(1)
    report.heading("Imagination")
    absent = missing(config.policy, config.judge)
    if absent is not None:
        print(absent)
        report.text(absent)
        return
    found = improve_policy(
        config.trained,
        config.policy,
        config.judge,
        config.out / "imagination",
        minutes=config.imagine_minutes,
        episodes=40,
        trials=config.trials,
        device=config.device,
    )
    first, best = found.imagined["first"], found.imagined["best"]
    outcome = f"its return went from {first['return']:.3f} to {best['return']:.3f}."
    if best["step"] == 0:
        outcome = "nothing did better, so it is kept as it was: before and after are one policy."
    report.text(
        f"The policy {config.policy} acted in dreams from recorded frames for "
        f"{60 * config.imagine_minutes:.0f} s, {found.imagined['updates']} updates, and a judge "
        f"rewarded it. In dreams of held-out frames {outcome} For real, from {config.trials} fresh "
        "starts:"
    )
    report.meaning([real_meaning(found.scores)], titled=False)
    report.table(("policy", "success", "95% interval"), found.rows)
    report.text("These few updates and trials show how it works; the README has the measurement.")
    report.video(found.video, "before and after, from the same start")


def posttrain_stage(config: QuickstartConfig, report: Report) -> None:
    """Improve the world model by rewards on its own rollouts, and compare it with the one before."""
    torch.set_num_threads(1)
    found = posttrain_briefly(
        config.trained,
        config.train_data,
        config.out / "posttrained",
        minutes=config.posttrain_minutes,
        updates=config.train_steps,
        horizon=min(config.horizon, 25),
        device=config.device,
    )
    report.heading("Post-training")
    report.text(
        "The world model rolled out some frames by itself and branched: candidates with the same "
        "actions and other noise. Candidates closer to the recording became more likely, the others "
        f"less likely, {found.last['step']} times in {60 * config.posttrain_minutes:.0f} s. Dreams of the "
        "held-out episode before and after; these few updates show how it works, not what it can gain."
    )
    report.meaning(change_meaning(found.changes, ("fidelity",), found.last["step"]), titled=False)
    report.table(("measure", "before", "after"), found.rows)
    report.picture(found.curve, "reward of the candidates, and measures that are not rewarded")
    report.video(found.video, "truth, before and after")


STAGES: tuple[tuple[Stage, float], ...] = (
    (record_stage, 60),
    (train_stage, 180),
    (dream_stage, 30),
    (measure_stage, 60),
    (posttrain_stage, 90),
    (rank_stage, 60),
    (improve_stage, 90),
)


def run_quickstart(config: QuickstartConfig) -> None:
    """Run every stage and write `report.html`, `fidelity.json`, `timings.json` and `quickstart.log`.

    Raises:
        ValueError: The folder holds something, and `overwrite` is not set.
    """
    check_ranges(config)
    check_out(config.out, "report.html", overwrite=config.overwrite)
    with logged(config.out / "quickstart.log"):
        _run_stages(config)


def _run_stages(config: QuickstartConfig) -> None:
    command_device(config.device)
    report = Report("worldmodel quickstart: a dream of PushT")
    timings: list[dict[str, Any]] = []
    if config.install_seconds:
        install = {"stage": "install", "seconds": config.install_seconds, "budget_seconds": 240}
        timings.append(install)
    for stage, budget in STAGES:
        name = stage.__name__.removesuffix("_stage")
        print(f"\n== {name}: about {budget:.0f} s ==", flush=True)
        start = time.perf_counter()
        stage(config, report)
        seconds = round(time.perf_counter() - start, 1)
        timings.append({"stage": name, "seconds": seconds, "budget_seconds": budget})
    total = round(sum(entry["seconds"] for entry in timings), 1)
    description = {"machine": machine(config.device), "total_seconds": total, "stages": timings}
    write_json(config.out / "timings.json", description)
    report.heading("Timings")
    cells = [(t["stage"], f"{t['seconds']:.0f}", f"{t['budget_seconds']:.0f}") for t in timings]
    report.table(("stage", "seconds", "budget"), [*cells, ("total", f"{total:.0f}", "")])
    report.heading("Machine")
    report.facts(machine(config.device), "part")
    report.write(config.out / "report.html")
    print(f"\n{total:.0f} s in all; open {config.out / 'report.html'}, or drive it yourself:")
    print(f"worldmodel demo --world {config.trained}")


def by_horizon(report: Mapping[str, Any], view: str) -> tuple[list[float], list[float]]:
    """PSNR of a camera against horizon, as x and y of a curve."""
    values = report["cameras"][view]["psnr"]
    return [float(horizon) for horizon in values], list(values.values())


def fidelity_rows(measured: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows of the table: PSNR of every camera and position error of every object."""
    after = measured["after"]
    horizons = [str(horizon) for horizon in after["metadata"]["horizons"]]
    named = [(f"{name} training", report) for name, report in measured.items()]
    named.append(("copy last frame", {**after["copy_last"], "cameras": after["copy_last"]}))
    parts = [("cameras", view, "psnr", f"{view}: PSNR, dB") for view in after["cameras"]]
    parts += [("objects", name, "error_px", f"{name}: error, px") for name in after.get("objects", {})]
    rows = []
    for kind, key, metric, label in parts:
        for name, report in named:
            values = report[kind][key][metric]
            shown = ["-" if values[h] is None else f"{values[h]:.1f}" for h in horizons]
            rows.append((f"{label}, {name}", *shown))
    return ("at horizon", *horizons), rows


def plot(curves: Mapping[str, tuple[Any, Any]], file: Path, x: str, y: str, *, logarithmic: bool = False) -> None:
    """Write a PNG with one line per curve."""
    figure = empty_figure(7.0, 3.5)
    axes = figure.subplots()
    for name, (xs, ys) in curves.items():
        axes.plot(xs, ys, label=name)
    axes.set(xlabel=x, ylabel=y, yscale="log" if logarithmic else "linear")
    axes.legend()
    write_atomically(file, lambda path: figure.savefig(path, format="png", dpi=100))
