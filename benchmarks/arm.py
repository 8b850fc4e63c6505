"""The bars of a Meta-World world: masked PSNR against copying, and where gripper and object are.

```
worldmodel record metaworld:push-v3 --behaviour play --episodes 12 --seed 7 --out data/push-heldout
python benchmarks/arm.py --world checkpoints/metaworld-push --data data/push-heldout
```

Positions are read off the scene camera's pictures, dreamed ones and real ones, by a probe that was
trained on real frames of other episodes; the simulator says where things truly are. The probe's own
error on the real frames of the windows stands beside its error on the dreamed ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import tyro
from einops import rearrange
from jaxtyping import Float, UInt8
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn.functional import interpolate, smooth_l1_loss

from worldmodel.data import EpisodeSource, open_episodes
from worldmodel.dreams.context import context_of
from worldmodel.envs import make_env
from worldmodel.envs.metaworld.env import MetaWorld
from worldmodel.envs.metaworld.points import POINTS, image_points
from worldmodel.envs.scripts import behave
from worldmodel.fidelity.comparison import LAST_CONTEXT, dream
from worldmodel.fidelity.intervals import bootstrap_interval
from worldmodel.fidelity.measure import measure_fidelity
from worldmodel.fidelity.windows import evenly_spaced_windows, read_windows
from worldmodel.files import write_json
from worldmodel.model.card import table
from worldmodel.model.precision import autocast
from worldmodel.training.fit import fit
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class MetaWorldBars:
    """What to measure."""

    world: str
    """Folder of the world model."""
    data: Path
    """Held-out episodes, recorded with `worldmodel record metaworld:TASK`."""
    horizon: int = 25
    """Dreamed frames."""
    num_steps: int = 2
    """Denoising steps per frame."""
    starts: int = 2
    """Windows per episode."""
    probe_episodes: int = 120
    """Episodes simulated to train the probe on."""
    probe_steps: int = 500
    """Training steps of the probe."""
    out: Path = Path("runs/benchmarks/metaworld.json")
    """Where to write the report."""


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), nn.ReLU())


class Probe(nn.Module):
    """Where gripper and object are in a scene picture, in pixels of 64.

    A small U-Net (1505.04597) draws a heat map for each at half the picture's resolution; its
    expected coordinates are the position.
    """

    def __init__(self, width: int = 24):
        super().__init__()
        w = width
        self.to_half = convolution(3, w, 5, 2)
        self.to_quarter = nn.Sequential(convolution(w, 2 * w, 3, 2), convolution(2 * w, 2 * w))
        self.to_eighth = nn.Sequential(
            convolution(2 * w, 2 * w, 3, 2), convolution(2 * w, 2 * w), convolution(2 * w, 2 * w)
        )
        self.up_to_quarter, self.up_to_half = convolution(4 * w, 2 * w), convolution(3 * w, w)
        self.maps = nn.Conv2d(w, len(POINTS), 1)
        self.to(memory_format=torch.channels_last)

    def forward(self, frames: UInt8[Tensor, "n H W 3"]) -> Float[Tensor, "n p 2"]:
        """One (x, y) for each of `POINTS`."""
        half = self.to_half(rearrange(frames, "n h w c -> n c h w").float() / 127.5 - 1)
        quarter = self.to_quarter(half)
        up = self.up_to_quarter(torch.cat([doubled(self.to_eighth(quarter)), quarter], 1))
        up = self.up_to_half(torch.cat([doubled(up), half], 1))
        maps = self.maps(up).float()
        side = maps.shape[-1]
        chances = maps.flatten(2).softmax(-1).unflatten(-1, (side, side))
        places = (torch.arange(side) + 0.5) * 64 / side
        return torch.stack([(chances.sum(-2) * places).sum(-1), (chances.sum(-1) * places).sum(-1)], -1)


def doubled(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c H W"]:
    return interpolate(maps, scale_factor=2)


def simulate(env: MetaWorld, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scene pictures of an episode of play, and where gripper and object are in them."""
    observation, _ = env.reset(seed=seed)
    rng = np.random.default_rng([seed, 2])
    frames, points = [], []
    for action in islice(behave("play", env, rng), env.episode_steps("play")):
        frames.append(observation["observation.images.scene"])
        points.append(image_points(env))
        observation = env.step(action)[0]
    return np.stack(frames), np.stack(points)


def train_probe(env: MetaWorld, config: MetaWorldBars) -> Probe:
    """A probe trained on real frames; its seeds are far from those of any recording."""
    seeds = range(10**9, 10**9 + config.probe_episodes)
    episodes = [
        simulate(env, seed) for seed in track(seeds, "simulating frames for the probe", console=Console(stderr=True))
    ]
    frames = torch.from_numpy(np.concatenate([frames for frames, _ in episodes]))
    points = torch.from_numpy(np.concatenate([points for _, points in episodes])).float()
    return fit_probe(frames, points, config.probe_steps)


def fit_probe(frames: UInt8[Tensor, "n H W 3"], points: Float[Tensor, "n p 2"], steps: int) -> Probe:
    """Train a probe on pictures in which both points can be seen; the others are left out."""
    seen = ((points >= 0) & (points <= 64)).all(dim=(1, 2))
    frames, points = frames[seen], points[seen]
    torch.manual_seed(0)
    probe = Probe()

    def loss_of(step: int) -> Float[Tensor, ""]:
        pick = torch.randint(len(frames), (64,))
        with autocast(points.device):
            return smooth_l1_loss(probe(frames[pick]), points[pick])

    fit(probe, loss_of, steps=steps, learning_rate=2e-3, name="probe")
    return probe


def true_points(env: MetaWorld, source: EpisodeSource, episode: int) -> Float[Tensor, "t p 2"]:
    """Where gripper and object are in every frame, from replaying the recorded actions.

    Raises:
        ValueError: The replay does not show what was recorded.
    """
    clip = source.read(episode, 0, source.lengths[episode])
    observation, _ = env.reset(seed=source.reset_seed(episode))
    points = [image_points(env)]
    for action in clip.actions.numpy():
        observation = env.step(action)[0]
        points.append(image_points(env))
    recorded = clip.states[-1].numpy()
    if not np.allclose(observation["observation.state"], recorded, atol=1e-3):
        raise ValueError(
            f"{source.name}: episode {episode} ends at {recorded}, its replay at {observation['observation.state']}"
        )
    return torch.from_numpy(np.stack(points)).float()


@torch.no_grad()
def measure_points(
    world: WorldModel,
    source: EpisodeSource,
    probe: Probe,
    env: MetaWorld,
    config: MetaWorldBars,
    horizons: Sequence[int],
) -> dict:
    """Distances in pixels between the probe's and the simulator's positions.

    Returns:
        `<point>.<frames>.<horizon>`: mean and interval over episodes, with frames `dream`, `real`
        (the probe's own error) and `copy_last`.
    """
    windows = evenly_spaced_windows(source, starts=config.starts, horizon=config.horizon, stride=world.stride)
    clip = read_windows(source, windows, horizon=config.horizon, stride=world.stride)
    dreamed = dream(
        world.stream(context_of(clip), seeds=range(len(windows))),
        clip.actions[:, LAST_CONTEXT:],
        horizon=config.horizon,
        horizons=horizons,
        num_steps=config.num_steps,
    )
    view, groups = source.views.index("scene"), np.array([w.episode for w in windows])
    truth = {episode: true_points(env, source, episode) for episode in set(groups.tolist())}
    errors: dict = {name: {} for name in POINTS}
    for index, horizon in enumerate(horizons):
        at = LAST_CONTEXT + horizon
        frames = {
            "dream": dreamed[:, index, view],
            "real": clip.frames[:, at, view],
            "copy_last": clip.frames[:, LAST_CONTEXT, view],
        }
        places = torch.stack([truth[w.episode][w.start + at] for w in windows])
        for kind, pictures in frames.items():
            distance = (probe(pictures) - places).norm(dim=-1).double().numpy()
            for name, values in zip(POINTS, distance.T, strict=True):
                interval = bootstrap_interval(values, groups)
                row = {"mean": float(values.mean()), "interval": interval}
                errors[name].setdefault(kind, {})[str(horizon)] = row
    return errors


def markdown(report: dict, horizons: Sequence[int]) -> str:
    """A table with one row per figure."""
    rows = []
    for view in report["fidelity"]["cameras"]:
        for kind in ("cameras", "copy_last"):
            values = report["fidelity"][kind][view]["masked_psnr"]
            label = f"{view}: masked PSNR, dB" + ("" if kind == "cameras" else ", copy last")
            rows.append([label, *(f"{values[str(h)]:.1f}" for h in horizons)])
    for name, kinds in report["points"].items():
        for kind, found in kinds.items():
            cells = []
            for horizon in horizons:
                row = found[str(horizon)]
                low, high = row["interval"] or (float("nan"), float("nan"))
                cells.append(f"{row['mean']:.1f} [{low:.1f}, {high:.1f}]")
            rows.append([f"{name}: error, px of 64, {kind}", *cells])
    return table(["figure", *(f"at {horizon}" for horizon in horizons)], rows)


def main(config: MetaWorldBars) -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    world = WorldModel.load(config.world)
    source = open_episodes(config.data, size=tuple(world.size), views=world.views)
    horizons = [horizon for horizon in (1, 10, 25) if horizon <= config.horizon]
    env = make_env(source.robot_type, time_limit=10**6)
    probe = train_probe(env, config)
    report = {
        "points": measure_points(world, source, probe, env, config, horizons),
        "fidelity": measure_fidelity(
            world,
            source,
            horizon=config.horizon,
            num_steps=config.num_steps,
            starts=config.starts,
            alterations=("shuffled",),
            show_progress=True,
        ),
    }
    config.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(config.out, report)
    print(markdown(report, horizons))


if __name__ == "__main__":
    main(tyro.cli(MetaWorldBars))
