"""The fidelity bars of a world model on held-out episodes and all its figures, as Markdown tables.

```
worldmodel record pusht --episodes 50 --seed 7 --out data/pusht-heldout
python benchmarks/fidelity.py --world checkpoints/pusht --data data/pusht-heldout --num-steps 1 2 4
```
"""

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from worldmodel.fidelity.measure import FidelityConfig, fidelity
from worldmodel.model.card import fidelity_table
from worldmodel.model.precision import choose_device

HIGHER_IS_BETTER = {"psnr": True, "ssim": True, "lpips": False, "masked_psnr": True}


@dataclass(frozen=True)
class FidelityBars:
    """Which world model, on which data."""

    world: str | Path
    """Folder of the world model, or hf://USER/NAME@REV."""
    data: Path
    """Data set of held-out episodes."""
    num_steps: tuple[int, ...] = (2,)
    """Denoising steps per frame; a column for each."""
    out: Path = Path("runs/benchmarks")
    """Folder for the reports, `fidelity_<num_steps>_steps.json`."""
    seed: int = 0
    """Seed of the measurement."""
    horizon: int = 50
    """Dreamed frames."""
    starts: int = 4
    """Windows of each episode."""
    batch: int = 16
    """Windows that are dreamed at a time."""
    device: str = "auto"
    """Where the networks run: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""


@dataclass(frozen=True)
class Bar:
    """One figure that the world model has to reach.

    Attributes:
        label: What is measured.
        needed: The bar in words.
        figure: The figure in a report, or `None` when it was not measured.
        reached: Whether a figure is good enough.
        pattern: How a figure is printed.
    """

    label: str
    needed: str
    figure: Callable[[Mapping[str, Any]], float | None]
    reached: Callable[[float], bool]
    pattern: str = "{:.2f}"

    def cell(self, report: Mapping[str, Any]) -> str:
        """The figure in `report` and whether it is good enough."""
        figure = self.figure(report)
        if figure is None:
            return "not measured"
        return f"{self.pattern.format(figure)} ({'pass' if self.reached(figure) else 'MISSED'})"


def look_up(*path: str) -> Callable[[Mapping[str, Any]], float | None]:
    """The figure at `path`, `None` when the report has no such key."""

    def figure(report: Mapping[str, Any]) -> float | None:
        value: Any = report
        for key in path:
            value = {} if value is None else value.get(key)
        return value if isinstance(value, float) else None

    return figure


def worst_missing(report: Mapping[str, Any]) -> float | None:
    """The highest missing rate of any object at any horizon."""
    rates = [
        rate for scores in report.get("objects", {}).values() for rate in scores["missing"].values() if rate is not None
    ]
    return max(rates, default=None)


def losses_to_copying(report: Mapping[str, Any]) -> list[str]:
    """Pixel metrics from horizon 5 on at which copying the last frame is as good or better."""
    lost = []
    for view, metrics in report["cameras"].items():
        for metric, horizons in metrics.items():
            for horizon, dream in horizons.items():
                copied = report["copy_last"][view][metric][horizon]
                if int(horizon) < 5 or dream is None or copied is None:
                    continue
                better = dream > copied if HIGHER_IS_BETTER[metric] else dream < copied
                if not better:
                    lost.append(f"{view} {metric} at {horizon}")
    return lost


def unmeasured(report: Mapping[str, Any]) -> list[str]:
    """Pixel metrics without any figure, which `losses_to_copying` cannot judge."""
    return [
        f"{view} {metric}"
        for view, metrics in report["cameras"].items()
        for metric, horizons in metrics.items()
        if all(value is None for value in horizons.values())
    ]


def at_least(label: str, limit: float, *path: str) -> Bar:
    return Bar(label, f">= {limit:g}", look_up(*path), lambda figure: figure >= limit)


def at_most(label: str, limit: float, *path: str) -> Bar:
    return Bar(label, f"<= {limit:g}", look_up(*path), lambda figure: figure <= limit)


BARS = (
    at_least("top camera PSNR at 10, dB", 32, "cameras", "top", "psnr", "10"),
    at_least("top camera PSNR at 50, dB", 27, "cameras", "top", "psnr", "50"),
    at_most("agent error at 10, px", 1.0, "objects", "agent", "error_px", "10"),
    at_most("moving block error at 10, px", 2.0, "objects", "block", "moving_error_px", "10"),
    at_most("block error at 50, px", 4.0, "objects", "block", "error_px", "50"),
    Bar("missing objects, worst object and horizon", "<= 1%", worst_missing, lambda figure: figure <= 0.01, "{:.1%}"),
    Bar(
        "pixel metrics from 5 on that copying the last frame wins",
        "0",
        lambda report: float(len(losses_to_copying(report))),
        lambda figure: figure == 0,
        "{:.0f}",
    ),
    at_least("PSNR gap under shuffled actions at 10, dB", 3.0, "action_following", "shuffled", "psnr_gap", "10"),
)


def bars_table(reports: Mapping[int, Mapping[str, Any]]) -> str:
    """Markdown: a row for each bar, a column for each number of denoising steps."""
    columns = [f"{steps} step{'s' if steps > 1 else ''}" for steps in reports]
    lines = ["| bar | needed | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    for bar in BARS:
        cells = " | ".join(bar.cell(report) for report in reports.values())
        lines.append(f"| {bar.label} | {bar.needed} | {cells} |")
    return "\n".join(lines)


def machine(device: torch.device) -> str:
    """The machine the figures came from, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {os.cpu_count()} cores, torch {torch.__version__}"


def main(config: FidelityBars) -> None:
    """Measure at every number of denoising steps and print the bars."""
    reports = {}
    for num_steps in config.num_steps:
        reports[num_steps] = fidelity(
            FidelityConfig(
                world=config.world,
                data=config.data,
                num_steps=num_steps,
                seed=config.seed,
                out=config.out / f"fidelity_{num_steps}_steps.json",
                device=config.device,
                batch=config.batch,
                horizon=config.horizon,
                starts=config.starts,
                overwrite=True,
            )
        )
    about = next(iter(reports.values()))["metadata"]
    print(f"\n{about['windows']} windows of {about['episodes']} episodes; {machine(choose_device(config.device))}\n")
    print(f"## Bars\n\n{bars_table(reports)}\n")
    horizons = " / ".join(map(str, about["horizons"]))
    print(f"## Means after {horizons} dreamed frames\n\n{fidelity_table(list(reports.values()))}")
    for num_steps, report in reports.items():
        lost = losses_to_copying(report)
        if lost:
            print(f"\nnum_steps {num_steps}, copying the last frame wins: {', '.join(lost)}")
    lacking = unmeasured(next(iter(reports.values())))
    if lacking:
        print(f"\nnot measured, so not compared with copying: {', '.join(lacking)}")


if __name__ == "__main__":
    main(tyro.cli(FidelityBars))
