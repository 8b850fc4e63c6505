"""Turn a training run into a shipped checkpoint: bf16 weights, JSON, and a model card with figures.

Measure the run first (`worldmodel fidelity --world RUN --data HELD_OUT --num-steps K --out F`, for
1, 2 and 4 steps), then

    python benchmarks/ship.py --run RUN --out checkpoints/pusht --reports F2 F1 F4
        --machine "2 cores of ..." --command "worldmodel pretrain ..." --limits "..."

The first report also goes beside the weights, as `fidelity.json`.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from worldmodel.files import write_json
from worldmodel.model.card import ORDINALS, fidelity_table, spans
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class ShipConfig:
    """What to ship."""

    run: Path
    """Folder of the training run."""
    out: Path
    """Folder of the checkpoint."""
    reports: tuple[Path, ...]
    """Fidelity reports, one for each number of denoising steps."""
    machine: str
    """What it was trained and measured on, in words."""
    command: str
    """How it was trained, in words or as a command."""
    limits: str
    """What it cannot do, in a sentence or two."""
    data: str = ""
    """Where recorded data comes from and its licence, in words; simulated data, which has reset seeds, needs none."""


CARD = """\
# {name}

World model of {robot}: cameras {views} at {height} x {width} pixels, {action_dim} action and
{state_dim} state dimensions, {fps:g} frames/s{stride}. {weights:.2f}M weights (moving average, bf16).
Noise temperature {temperature:g}, chosen on validation episodes of the training data. Apache-2.0.

- **Data**: {data}
- **Training**: {steps} optimiser steps, {minutes:.0f} minutes. {command}
- **Machine**: {machine}

## Fidelity

{windows} windows of {held_out} held-out episodes, 8 frames of context, recorded
actions; means, for the horizons {horizons}. LPIPS: {lpips}.
{objects}
{table}

## Use

```python
from worldmodel import WorldModel

world = WorldModel.load("{out}")
```

## Limits

It knows only what was recorded: this robot, this scene, these cameras. {limits}
"""


def shown(stride: int) -> str:
    """Which frames a world model shows, in words."""
    return "" if stride == 1 else f", of which every {ORDINALS.get(stride, f'{stride}th')} is shown"


def described_data(config: ShipConfig, world: WorldModel, data: dict) -> str:
    """What the world model was trained on: recorded from a simulator, or as the user says."""
    count = len(data["episodes"])
    if data["reset_seeds"] is None:
        if not config.data:
            raise ValueError(f"{config.run}: trained on {data['name']}, which has no reset seeds; pass --data")
        return f"episodes {spans(data['episodes'])} of `{data['name']}`. {config.data}"
    robot = world.config.robot_type
    return f"{count} episodes of `worldmodel record {robot}`, reset seeds {spans(data['reset_seeds'])}."


def main(config: ShipConfig) -> None:
    """Write weights, the first report and the model card, and print the card."""
    world = WorldModel.load(config.run)
    world.save(config.out, dtype=torch.bfloat16)
    reports = [json.loads(path.read_text()) for path in config.reports]
    write_json(config.out / "fidelity.json", reports[0])
    progress = json.loads((config.run / "state" / "state.json").read_text())
    about, data = reports[0]["metadata"], world.train_data[-1]
    lpips = [m["lpips"] for m in reports[0]["cameras"].values()]
    measured = any(value is not None for metric in lpips for value in metric.values())
    card = CARD.format(
        name=config.out.name,
        out=config.out,
        robot=world.config.robot_type,
        views=" and ".join(world.views),
        height=world.size[0],
        width=world.size[1],
        action_dim=world.action_dim,
        state_dim=world.state_dim,
        fps=world.fps,
        stride=shown(world.stride),
        weights=sum(p.numel() for p in world.parameters()) / 1e6,
        data=described_data(config, world, data),
        objects="A missing object counts as 32 px of 64.\n" if reports[0].get("objects") else "",
        steps=progress["step"],
        minutes=progress["seconds"] / 60,
        command=config.command,
        machine=config.machine,
        limits=config.limits,
        temperature=world.config.temperature,
        windows=about["windows"],
        held_out=about["episodes"],
        horizons=" / ".join(map(str, about["horizons"])),
        table=fidelity_table(reports),
        lpips="measured" if measured else "not measured, the AlexNet weights were not at hand",
    )
    (config.out / "README.md").write_text(card)
    print(card)


if __name__ == "__main__":
    main(tyro.cli(ShipConfig))
