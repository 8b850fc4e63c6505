"""The probes of `invariants_probe.py` for trees from before that file, whose modules lay flat.

`invariants.py` runs this in such a tree; delete it when nobody compares with one any more.
"""

import csv
from pathlib import Path

import numpy as np
import torch
from invariants_probe import CONTEXT, DATA, DREAMS, DREAMT, STREAMS, WORLDS, Arrays, digest, drawn_world, row_of, run

DIT = {"width": 32, "encoder_depth": 2, "decoder_depth": 1, "window": 4, "head_width": 16}
PRETRAIN = {"steps": 10, "batch": 4, "frames": 5, "size": (32, 32), "validation_episodes": 1, "seed": 3}
LOSS = {"forward_fraction": 0.8, "forward_start": 0.2, "shortcut_interval": 2}
RECORD = {"episodes": 8, "seed": 7, "behaviour": "mixture", "num_workers": 1}
RANK = {"episodes": 3, "horizon": 60, "num_envs": 2, "seed": 1}
POSTTRAIN = {
    "steps": 2,
    "groups": 2,
    "candidates": 2,
    "context": 2,
    "prefix": 2,
    "branch": 3,
    "validation_episodes": 1,
    "evaluation_horizon": 4,
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
            state, frames, states = world.start(clip.head(CONTEXT), seed=5), [], []
            for index in range(CONTEXT - 1, CONTEXT - 1 + DREAMT):
                seen, state = world.step(state, clip.actions[:, index], num_steps=num_steps, temperature=temperature)
                frames.append(seen.frames)
                states.append(seen.states)
            found[f"dream.{name}.{kind}.frames"] = torch.stack(frames, 1).numpy()
            found[f"dream.{name}.{kind}.states"] = torch.stack(states, 1).numpy()
    return found


def training(folder: Path) -> Arrays:
    """Ten losses of a tiny world from scratch, its weights, and what validation says of it."""
    from worldmodel.dit import DiTConfig
    from worldmodel.objective import LossConfig
    from worldmodel.pretrain import PretrainConfig, pretrain
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

    from policy_eval.clone import CloneConfig, clone
    from policy_eval.judge_training import JudgeConfig, judge
    from rl_posttrain.inverse_dynamics_training import InverseDynamicsCommand, inverse_dynamics

    data, few = starts(folder), {"steps": 4, "batch": 8}
    clone(CloneConfig(data, folder / "policy", relative_to={0: 0, 1: 1}, cap=20.0, **few))
    judge(JudgeConfig(data, folder / "judge", held_out=0.75, **few))
    inverse_dynamics(InverseDynamicsCommand(data, folder / "inverse_dynamics", validation_episodes=1, **few))
    files = {file.parent.name: file for file in sorted(folder.glob("*/*.safetensors"))}
    return {f"fits.{name}": digest(load_file(file).values()) for name, file in files.items()}


def ranking(folder: Path) -> Arrays:
    """Trials of a shipped policy in the dream and in the simulator."""
    from policy_eval.trials import Bench, Cell, play

    world, judge = "checkpoints/pusht", Path("checkpoints/judges/pusht-position")
    bench = Bench(world, judge, starts(folder), real="pusht-position", **RANK)
    policy = Path("checkpoints/policies/pusht-position/demos-150")
    found: Arrays = {}
    for place in ("dream", "real"):
        scores = play(bench, Cell(place, policy.name, policy, tuple(range(RANK["episodes"]))), folder)
        found |= {f"ranking.{place}.{key}": getattr(scores, key) for key in ("outcomes", "returns", "steps")}
    return found


def imagination(folder: Path) -> Arrays:
    """The numbers of the second update of either objective."""
    from rl_posttrain.imagine import ImagineConfig, imagine
    from rl_posttrain.learner import LearnConfig

    found: Arrays = {}
    for objective in ("imitation", "pmpo"):
        out = folder / objective
        config = ImagineConfig(
            world="checkpoints/pusht",
            judge=Path("checkpoints/judges/pusht-position"),
            policy=Path("checkpoints/policies/imagination/pusht-position"),
            starts=starts(folder),
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
    from rl_posttrain.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
    from rl_posttrain.posttrain import posttrain
    from rl_posttrain.posttrain_config import PosttrainConfig
    from rl_posttrain.reward_mix import RewardWeights
    from worldmodel.world_model import WorldModel

    dynamics = InverseDynamicsConfig(("top", "wrist"), (64, 64), 2, {0: 0, 1: 1}, keypoints=4, width=8)
    InverseDynamics(dynamics).save_pretrained(folder / "dynamics")
    config = PosttrainConfig(
        world=Path("checkpoints/pusht"),
        data=DATA,
        out=folder,
        inverse_dynamics=folder / "dynamics",
        reward=RewardWeights(moving_area=0.3),
        patience=0,
        **POSTTRAIN,
    )
    posttrain(config)
    found = row_of(folder / "updates.jsonl", "posttraining")
    found |= row_of(folder / "evaluations.jsonl", "posttraining.evaluated")
    return {**found, "posttraining.weights": digest(WorldModel.load(folder).state_dict().values())}


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
