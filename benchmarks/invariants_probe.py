"""The numbers of this tree that a refactoring leaves alone; `invariants.py` compares two trees.

python benchmarks/invariants_probe.py OUT.npz [PROBE...]

Runs in the tree that it belongs to, and imports that tree's packages. Every probe returns arrays by
name, and every tree's probe uses the same names. When the interface changes, adapt the probe here;
`invariants_legacy.py` has the same probes for trees that are older than this file.
"""

import csv
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

Arrays = dict[str, np.ndarray]
DATA = Path("tests/data/lerobot_v30_pusht")
WORLDS = ("pusht", "metaworld-push", "metaworld-window-open")
STREAMS, CONTEXT, DREAMT = 2, 8, 20
DREAMS = {"1-step": (1, 0.0), "2-step": (2, 0.0), "4-step": (4, 0.0), "noise": (2, 1.0)}
"""Denoising steps and temperature of each kind of dream."""
DIT = {"width": 32, "encoder_depth": 2, "decoder_depth": 1, "window": 4, "head_width": 16}
PRETRAIN = {"steps": 10, "batch": 4, "frames": 5, "size": (32, 32), "validation_episodes": 1, "seed": 3}
LOSS = {"forward_fraction": 0.8, "forward_start": 0.2, "shortcut_interval": 2}
RECORD = {"episodes": 8, "seed": 7, "behaviour": "mixture", "workers": 1}
RANK = {"episodes": 3, "horizon": 60, "num_envs": 2, "seed": 1}
POSTTRAIN = {
    "steps": 2,
    "groups": 2,
    "candidates": 2,
    "context": 2,
    "prefix": 2,
    "branch": 3,
    "validation_episodes": 1,
    "validation_horizon": 4,
    "learning_rate": 1e-4,
    "average_decay": 0.5,
    "kl_weight": 0.1,
}
IMAGINE = {
    "updates": 2,
    "streams": 8,
    "horizon": 30,
    "first_frames": False,
    "pool": 8,
    "held_out": 0.25,
    "validation_starts": 2,
    "validation_horizon": 8,
}


def drawn_world(world: str, frames: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Frames `b t 2 64 64 3`, actions `b t-1 4` and states `b t 4`: two discs move over a gradient."""
    rng = np.random.default_rng(WORLDS.index(world))
    centre, speed = rng.uniform(16, 48, (STREAMS, 2, 1, 2)), rng.uniform(-1, 1, (STREAMS, 2, 1, 2))
    paths = (centre + speed * np.arange(frames)[:, None]).transpose(0, 2, 1, 3)  # b t v 2
    y, x = np.mgrid[:64, :64]
    disc = np.hypot(x - paths[..., 0, None, None], y - paths[..., 1, None, None]) < 8
    pictures = np.where(disc[..., None], (200, 60, 40), np.stack([2 * x, 2 * y, x + y], -1))
    actions, states = rng.uniform(-1, 1, (STREAMS, frames - 1, 4)), rng.uniform(-0.2, 0.6, (STREAMS, frames, 4))
    return (
        torch.from_numpy(pictures.astype(np.uint8)),
        torch.from_numpy(actions).float(),
        torch.from_numpy(states).float(),
    )


def digest(tensors: Iterable[torch.Tensor]) -> np.ndarray:
    """Hash of some tensors, whatever their order."""
    each = sorted(sha256(tensor.detach().flatten().view(torch.uint8).numpy()).digest() for tensor in tensors)
    return np.array(sha256(b"".join(each)).hexdigest())


def row_of(file: Path, prefix: str) -> Arrays:
    """The last row of a JSON-lines table, without the time."""
    row = json.loads(file.read_text().splitlines()[-1])
    values = {key: float("nan") if value is None else value for key, value in row.items() if key != "seconds"}
    return {f"{prefix}.{key}": np.array(value) for key, value in values.items()}


def run(probes: Mapping[str, Callable[[Path], Arrays]]) -> None:
    """Run all probes, or those named on the command line, and write their arrays."""
    torch.set_num_threads(1)
    out, *names = sys.argv[1:]
    found: Arrays = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names or probes:
            torch.manual_seed(0)
            found |= probes[name](Path(folder) / name)
    np.savez(out, **found)


def dreams(folder: Path) -> Arrays:
    """Frames and states that each shipped world dreams."""
    from worldmodel.data import Clip, open_episodes, stack_clips
    from worldmodel.world_model import WorldModel

    found: Arrays = {}
    for name in WORLDS:
        world = WorldModel.load(f"checkpoints/{name}")
        if name == "pusht":
            source = open_episodes(DATA, tuple(world.size), world.views)
            clip = stack_clips([source.read(episode, 0, CONTEXT + DREAMT) for episode in range(STREAMS)])
        else:
            clip = Clip(*drawn_world(name, CONTEXT + DREAMT))
        for kind, (num_steps, temperature) in DREAMS.items():
            stream, actions = world.stream(clip.head(CONTEXT), seeds=5), clip.actions[:, CONTEXT - 1 :]
            seen = list(stream.roll(actions, num_steps=num_steps, temperature=temperature))
            found[f"dream.{name}.{kind}.frames"] = torch.stack([each.frames for each in seen], 1).numpy()
            found[f"dream.{name}.{kind}.states"] = torch.stack([each.states for each in seen], 1).numpy()
    return found


def training(folder: Path) -> Arrays:
    """Ten losses of a tiny world from scratch, its weights, and what validation says of it."""
    from worldmodel.model.dit import DiTConfig
    from worldmodel.training.loss import LossConfig
    from worldmodel.training.pretrain import PretrainConfig, pretrain
    from worldmodel.world_model import WorldModel

    config = PretrainConfig(DATA, folder, dit=DiTConfig(**DIT), loss=LossConfig(**LOSS), **PRETRAIN)
    pretrain(config)
    losses = [float(row["loss"]) for row in csv.DictReader((folder / "losses.csv").open())]
    weights = digest(WorldModel.load(folder).state_dict().values())
    return {"training.losses": np.array(losses), "training.weights": weights}


def starts(folder: Path) -> Path:
    """Recorded episodes of PushT-Position, the same for all probes."""
    from worldmodel.envs.record import RecordConfig, record

    out = folder.parent / "starts"
    return out if out.exists() else record(RecordConfig("pusht-position", out, **RECORD))


def recording(folder: Path) -> Arrays:
    """Recorded episodes as they are read back."""
    from worldmodel.data import open_episodes

    source = open_episodes(starts(folder))
    clips = [source.read(episode, 0, length) for episode, length in enumerate(source.lengths)]
    found = {f"recording.{name}": digest(getattr(clip, name) for clip in clips) for name in ("frames", "actions")}
    return {**found, "recording.seeds": np.array([source.reset_seed(episode) for episode in range(len(source))])}


def fits(folder: Path) -> Arrays:
    """Weights of a policy, a judge and inverse dynamics after a few supervised steps."""
    from safetensors.torch import load_file

    from policy_eval.judge.inverse_dynamics_training import InverseDynamicsTraining, train_inverse_dynamics
    from policy_eval.judge.train import JudgeConfig, train_judge
    from policy_eval.policies.clone import CloneConfig, clone

    data, few = starts(folder), {"steps": 4, "batch": 8}
    clone(CloneConfig(data, folder / "policy", relative_to={0: 0, 1: 1}, cap=20.0, **few))
    train_judge(JudgeConfig(data, folder / "judge", held_out=0.75, **few))
    train_inverse_dynamics(
        InverseDynamicsTraining(data, folder / "inverse_dynamics", validation_episodes=2, head_steps=20, **few)
    )
    files = {file.parent.name: file for file in sorted(folder.glob("*/*.safetensors"))}
    return {f"fits.{name}": digest(load_file(file).values()) for name, file in files.items()}


def ranking(folder: Path) -> Arrays:
    """Trials of a shipped policy in the dream and in the simulator."""
    from policy_eval.ranking.setup import TrialSetup
    from policy_eval.ranking.trials import Cell, play

    world, judge = "checkpoints/pusht", Path("checkpoints/judges/pusht-position")
    setup = TrialSetup(world, judge, starts(folder), real="pusht-position", **RANK)
    policy = Path("checkpoints/policies/pusht-position/demos-150")
    found: Arrays = {}
    for place in ("dream", "real"):
        scores = play(setup, Cell(place, policy.name, policy, tuple(range(RANK["episodes"]))), folder)
        found |= {f"ranking.{place}.{key}": getattr(scores, key) for key in ("outcomes", "returns", "steps")}
    return found


def imagination(folder: Path) -> Arrays:
    """The numbers of the second update of either objective."""
    from rl_posttrain.imagination.config import ImagineConfig
    from rl_posttrain.imagination.learner import LearnConfig
    from rl_posttrain.imagination.train import imagine

    found: Arrays = {}
    for objective in ("imitation", "pmpo"):
        out = folder / objective
        config = ImagineConfig(
            world="checkpoints/pusht",
            judge=Path("checkpoints/judges/pusht-position"),
            policy=Path("checkpoints/policies/imagination/pusht-position"),
            data=starts(folder),
            out=out,
            learn=LearnConfig(objective, warmup=0, imitation_steps=2, minibatch=16),
            **IMAGINE,
        )
        imagine(config)
        found |= row_of(out / "updates.jsonl", f"imagination.{objective}")
        found |= row_of(out / "validation.jsonl", f"imagination.{objective}.measured")
    return found


def posttraining(folder: Path) -> Arrays:
    """Rewards and loss of the second update, the evaluation and the weights after it."""
    from policy_eval.judge.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
    from rl_posttrain.posttraining.config import PosttrainConfig
    from rl_posttrain.posttraining.train import posttrain
    from rl_posttrain.rewards.mix import RewardWeights
    from worldmodel.world_model import WorldModel

    dynamics = InverseDynamicsConfig(("top", "wrist"), (64, 64), 2, {0: 0, 1: 1}, keypoints=4, width=8)
    InverseDynamics(dynamics).save(folder / "dynamics")
    out = folder / "out"
    config = PosttrainConfig(
        world=Path("checkpoints/pusht"),
        data=DATA,
        out=out,
        inverse_dynamics=folder / "dynamics",
        reward=RewardWeights(moving_area=0.3),
        patience=0,
        **POSTTRAIN,
    )
    posttrain(config)
    found = row_of(out / "updates.jsonl", "posttraining")
    found |= row_of(out / "evaluations.jsonl", "posttraining.evaluated")
    return {**found, "posttraining.weights": digest(WorldModel.load(out).state_dict().values())}


PROBES = {
    "dreams": dreams,
    "training": training,
    "recording": recording,
    "fits": fits,
    "ranking": ranking,
    "imagination": imagination,
    "posttraining": posttraining,
}

if __name__ == "__main__":
    run(PROBES)
