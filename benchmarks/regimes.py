"""Four kinds of physics, in and out of distribution, three ways to tell the network the actions: one table.

    python benchmarks/regimes.py --out runs/regimes

As in ACWM-Phys (2605.08567), four regimes with one controlled shift each: rigid contact (PushT), a deformable body
(PushT-Rope), particles (PushT-Sand) and a moving arm (reach-v3). Records every data set, trains one world model for
each regime and injection of actions, all for the same CPU minutes in one thread, and measures its gain over copying the
last frame after 10 frames: masked PSNR of the outer camera, 95% intervals over episodes. A decibel can be had by
erasing what moves, so the table of the objects that are missing belongs to that of the gains. What is finished is in
`regimes.json` after every world. Called again with the same `--out`, it goes on where it was stopped.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import tyro
from einops import rearrange
from PIL import Image

from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.envs.record import RecordConfig, record
from worldmodel.fidelity.measure import measure_fidelity
from worldmodel.files import read_object, write_json
from worldmodel.model.card import table
from worldmodel.model.dit import DiTConfig
from worldmodel.training.checkpoint import has_state
from worldmodel.training.config import PretrainConfig
from worldmodel.training.pretrain import pretrain
from worldmodel.world_model import WorldModel

Injection = Literal["adaln", "cross", "token"]
INJECTIONS: tuple[Injection, ...] = get_args(Injection)
SPLITS = ("train", "in", "out")
SEEDS = {"train": 70, "in": 71, "out": 72}
"""Seed of each recording; different seeds never share a start."""
HORIZON, BAR = 10, 1.0
"""Frames after which the gain is taken, and the aim in dB, in distribution."""
RESULT, PICTURE = "result.json", "regimes.png"


@dataclass(frozen=True)
class Regime:
    """One kind of physics.

    Attributes:
        env: The environment.
        view: Its outer camera.
        shift: The controlled change out of distribution.
        relative_to: Actions that are absolute targets, and the state dims that they are targets of.
    """

    env: str
    view: str
    shift: str
    relative_to: Mapping[int, int] = field(default_factory=dict)


TARGETS = {0: 0, 1: 1}
REGIMES = {
    "rigid": Regime("pusht", "top", "start-region", TARGETS),
    "deformable": Regime("pusht-rope", "top", "longer-rope", TARGETS),
    "particles": Regime("pusht-sand", "top", "more-discs", TARGETS),
    "kinematic": Regime("metaworld:reach-v3", "scene", "goal-region"),
}


@dataclass(frozen=True)
class RegimesConfig:
    """What to train and to measure."""

    out: Path
    """Folder of the recordings, the worlds, their figures and `regimes.json`."""
    minutes: float = 5.0
    """CPU minutes of each training, in one thread."""
    only: tuple[str, ...] = ()
    """Regimes to do, or single worlds as in rigid/token; all when not given."""
    episodes: int = 160
    """Episodes to train on."""
    held_out: int = 24
    """Episodes to measure on, in and out of distribution each."""
    starts: int = 2
    """Windows per measured episode."""
    batch: int = 8
    """Clips per optimiser step."""
    size: int = 64
    """Side of the pictures in pixels."""
    seed: int = 0
    """Seed of weights, batches and noise."""
    dit: DiTConfig = field(default_factory=DiTConfig)
    """The transformer."""


def record_split(config: RegimesConfig, regime: Regime, split: str) -> Path:
    """Record one data set of a regime, unless it is complete."""
    out = config.out / "data" / f"{regime.env.replace(':', '-')}-{split}"
    episodes = config.episodes if split == "train" else config.held_out
    shift = regime.shift if split == "out" else ""
    settings = {"episodes": episodes, "seed": SEEDS[split], "shift": shift, "size": config.size}
    return record(RecordConfig(regime.env, out, workers=1, **settings))


def train(config: RegimesConfig, regime: Regime, injection: Injection, out: Path) -> WorldModel:
    """Train a world model on the outer camera; what a killed run left is continued."""
    run = PretrainConfig(
        data=record_split(config, regime, "train"),
        out=out,
        steps=10**6,
        minutes=config.minutes,
        clock="cpu",
        batch=config.batch,
        views=(regime.view,),
        relative_to=dict(regime.relative_to),
        injection=injection,
        validation_episodes=1,
        validation_interval=10**6,
        save_interval=100,
        log="none",
        resume=has_state(out),
        overwrite=not has_state(out),
        seed=config.seed,
        device="cpu",
        dit=config.dit,
    )
    return WorldModel.load(pretrain(run))


def measure(config: RegimesConfig, world: WorldModel, regime: Regime) -> dict[str, dict]:
    """Figures of a world model in and out of distribution, each with its interval."""
    found = {}
    for split in ("in", "out"):
        source = open_episodes(record_split(config, regime, split), tuple(world.size), world.views)
        options = {"horizon": HORIZON, "starts": config.starts, "seed": config.seed, "alterations": ("shuffled",)}
        report = measure_fidelity(world, EpisodeCache(source), **options)
        at = str(HORIZON)
        found[split] = {
            "gain": report["gain"][regime.view]["masked_psnr"][at],
            "interval": report["intervals"]["gain"][regime.view]["masked_psnr"][at],
            "windows": report["n"]["gain"][regime.view]["masked_psnr"][at],
            "masked_psnr": report["cameras"][regime.view]["masked_psnr"][at],
            "psnr": report["cameras"][regime.view]["psnr"][at],
            "psnr_copying": report["copy_last"][regime.view]["psnr"][at],
            "gap": report["action_following"]["shuffled"]["psnr_gap"][at],
            "gap_interval": report["intervals"]["action_following"]["shuffled"]["psnr_gap"][at],
            "objects": objects_of(report, "error_px", at),
            "objects_copying": objects_of(report["copy_last"], "error_px", at),
            "missing": objects_of(report, "missing", at),
            "missing_copying": objects_of(report["copy_last"], "missing", at),
        }
    return found


def objects_of(report: Mapping[str, dict], figure: str, horizon: str) -> dict[str, float | None]:
    """One figure of every object: `missing`, or `error_px` of a 64-pixel picture, where a missing one counts as 32."""
    return {name: each[figure][horizon] for name, each in report.get("objects", {}).items()}


def train_and_measure(config: RegimesConfig, name: str, injection: Injection) -> None:
    """One world and its figures; what is finished is not done again."""
    out = config.out / f"{name}-{injection}"
    if (out / RESULT).exists():
        return
    world = train(config, REGIMES[name], injection, out)
    steps = len((out / "losses.csv").read_text().splitlines()) - 1
    write_json(out / RESULT, {"steps": steps, **measure(config, world, REGIMES[name])})


def wanted(config: RegimesConfig) -> list[tuple[str, Injection]]:
    """The worlds to train: all regimes with the default injection first, then the other injections."""
    known = [(name, injection) for injection in ("adaln", "token", "cross") for name in REGIMES]
    names = {*REGIMES, *(f"{name}/{injection}" for name, injection in known)}
    if unknown := sorted(set(config.only) - names):
        raise SystemExit(f"there is no regime {unknown[0]!r}; known are {', '.join(REGIMES)}, and {known[0][0]}/token")
    chosen = config.only or tuple(REGIMES)
    return [(name, injection) for name, injection in known if {name, f"{name}/{injection}"} & set(chosen)]


def results_of(config: RegimesConfig) -> dict[str, dict[str, dict]]:
    """The finished figures by regime and injection."""
    found: dict[str, dict[str, dict]] = {}
    for name in REGIMES:
        for injection in INJECTIONS:
            file = config.out / f"{name}-{injection}" / RESULT
            if file.exists():
                found.setdefault(name, {})[injection] = read_object(file)
    return found


def cell(value: float | None, interval: list[float] | None) -> str:
    """A difference in dB with its interval."""
    if value is None:
        return "-"
    ends = "" if interval is None else f" [{interval[0]:+.1f}, {interval[1]:+.1f}]"
    return f"{value:+.1f}{ends}"


def lost(figures: Mapping[str, dict]) -> str:
    """In how many dreams the object is missing that is missing most often: what a gain may have been bought with."""
    shares = [share for share in figures["missing"].values() if share is not None]
    return f", {max(shares):.0%} lost" if shares else ""


def gain_rows(results: Mapping[str, Mapping[str, dict]]) -> str:
    """One row for each regime and split, one column for each injection, with what is lost."""
    return rows(results, lambda figures: cell(figures["gain"], figures["interval"]) + lost(figures))


def rows(results: Mapping[str, Mapping[str, dict]], shown: Callable[[Mapping[str, dict]], str]) -> str:
    """One row for each regime and split, one column for each injection."""
    lines = []
    for name, worlds in results.items():
        for split, label in (("in", "as trained on"), ("out", REGIMES[name].shift)):
            cells = [shown(worlds[each][split]) if each in worlds else "-" for each in INJECTIONS]
            lines.append([f"{name}: `{REGIMES[name].env}`", label, *cells])
    return table(["regime", "data", *INJECTIONS], lines)


def object_rows(results: Mapping[str, Mapping[str, dict]], figure: str, pattern: str) -> str:
    """One row for each object in distribution, one column for each injection; copying in the last one."""
    lines = []
    for name, worlds in results.items():
        first = next(iter(worlds.values()))["in"]
        for thing, copied in first[f"{figure}_copying"].items():
            values = [worlds[each]["in"][figure][thing] if each in worlds else None for each in INJECTIONS]
            lines.append([name, thing, *("-" if each is None else pattern.format(each) for each in (*values, copied))])
    return table(["regime", "object", *INJECTIONS, "copying"], lines)


def tables(results: Mapping[str, Mapping[str, dict]]) -> str:
    """Markdown: the gains, what shuffled actions cost, the objects, and the steps of every training."""
    steps = [
        [name, *(str(worlds[each]["steps"]) if each in worlds else "-" for each in INJECTIONS)]
        for name, worlds in results.items()
    ]
    parts = {
        f"Gain over copying after {HORIZON} frames, masked PSNR, dB; lost: the object most often missing": gain_rows(
            results
        ),
        f"PSNR lost under shuffled actions after {HORIZON} frames, dB": rows(
            results, lambda figures: cell(figures["gap"], figures["gap_interval"])
        ),
        f"Share of dreams in which the object is missing after {HORIZON} frames, in distribution": object_rows(
            results, "missing", "{:.0%}"
        ),
        f"Position errors after {HORIZON} frames in distribution, px of 64": object_rows(results, "objects", "{:.1f}"),
        "Optimiser steps": table(["regime", *INJECTIONS], steps),
    }
    return "\n\n".join(f"# {title}\n\n{text}" for title, text in parts.items())


def verdict(results: Mapping[str, Mapping[str, dict]]) -> str:
    """In how many regimes the aim is met with the default injection."""
    gains = {name: worlds["adaln"]["in"]["gain"] for name, worlds in results.items() if "adaln" in worlds}
    met = sum(gain is not None and gain > BAR for gain in gains.values())
    return f"gain above {BAR:g} dB in distribution with adaln: {met} of {len(gains)} regimes"


def check_settings(config: RegimesConfig) -> None:
    """Keep the settings of a folder, and refuse to mix them with others."""
    file = config.out / "settings.json"
    names = ("minutes", "episodes", "held_out", "starts", "batch", "size", "seed")
    settings = {name: getattr(config, name) for name in names} | {"dit": vars(config.dit)}
    if file.is_file() and read_object(file) != settings:
        raise SystemExit(f"{file} is {read_object(file)}, this run is {settings}")
    config.out.mkdir(parents=True, exist_ok=True)
    write_json(file, settings)


def draw(config: RegimesConfig, names: Iterable[str]) -> None:
    """Write `regimes.png`: per regime some frames of one episode as trained on, and below of one with the shift."""
    rows = []
    for name in names:
        for split in ("in", "out"):
            source = open_episodes(record_split(config, REGIMES[name], split), (config.size, config.size))
            frames = source.read(0, 0, source.lengths[0]).frames[:: max(1, (source.lengths[0] - 1) // 5)][:6]
            rows.append(rearrange(frames.numpy(), "t v h w c -> (v h) (t w) c"))
    Image.fromarray(np.concatenate(rows)).save(config.out / PICTURE)


def main(config: RegimesConfig) -> None:
    """Train and measure every world that is asked for; print the tables after each one."""
    torch.set_num_threads(1)
    worlds = wanted(config)
    check_settings(config)
    for name, injection in worlds:
        train_and_measure(config, name, injection)
        results = results_of(config)
        write_json(config.out / "regimes.json", results)
        if (name, injection) != worlds[-1]:
            print(f"{name}-{injection} is done; {verdict(results)}", flush=True)
    draw(config, results)
    print(f"{tables(results)}\n\n{verdict(results)}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(RegimesConfig, description=__doc__))
