"""A steered policy as a folder: `steered.json` names its parts, and nothing is copied.

The parts are named so that the folder can be moved together with them: a local path is written relative to the folder
and begins with a dot. Everything else is written as it was given: the models that ship with this package
(`checkpoints/...`), `hf://USER/NAME`, `module:name`, and addresses of servers.
"""

import json
import os
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path

import torch
from gymnasium import spaces

from policy_eval.judge.find import judge_fingerprint, load_judge
from policy_eval.policies.find import STEERED_FILE, load_policy, policy_fingerprint
from policy_eval.policies.lerobot import PREFIX
from policy_eval.policies.needs import IMAGES, STATE, check_fits
from policy_eval.policies.policy import Policy
from policy_eval.steering.proposals import PROPOSALS, Planner, find_proposal
from policy_eval.steering.scorers import SCORERS, find_scorer
from policy_eval.steering.steered import SteeredPolicy, offsets
from worldmodel.files import is_shipped, write_json
from worldmodel.model.folder import FORMAT, find_model, fingerprint, read_description
from worldmodel.resolve import source_hash
from worldmodel.world_model import WorldModel

PARTS = ("policy", "world", "judge")
"""Fields that name a model."""


@dataclass(frozen=True)
class SteeredDescription:
    """What `steered.json` holds."""

    policy: str
    """The policy that is steered, as in `load_policy`."""
    world: str
    """The world model that imagines."""
    judge: str | None = None
    """The judge of the scorer `value`."""
    k: int = 4
    """Number of plans to choose from."""
    lookahead: int = 8
    """Imagined steps."""
    spread: float = 0.3
    """Standard deviation of the plans' offsets, as a share of half the range of the world model's actions."""
    proposal: str = "jitter"
    """Who makes the plans, as in `find_proposal`."""
    scorer: str = "value"
    """Who scores them, as in `find_scorer`."""
    context: int = 4
    """Past frames that a dream begins with."""
    num_steps: int = 1
    """Denoising steps per frame."""


def save_steered(described: SteeredDescription, folder: Path) -> None:
    """Write `steered.json`; its parts are named relative to `folder` where they are local."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {name: _written(getattr(described, name), folder) for name in PARTS}
    write_json(folder / STEERED_FILE, {"format": FORMAT, **asdict(described), **named})


def read_steered(spec: str | Path) -> SteeredDescription:
    """Read what `save_steered` wrote; the parts are named so that they are found from here.

    Raises:
        ValueError: There is no valid `steered.json`.
    """
    folder = find_model(spec, STEERED_FILE)
    described = read_description(folder / STEERED_FILE, SteeredDescription)
    named = {name: _found(getattr(described, name), folder) for name in PARTS}
    return SteeredDescription(**{**asdict(described), **named})


def load_steered(spec: str | Path, device: torch.device | str = "cpu") -> SteeredPolicy:
    """Load a steered policy and everything that its `steered.json` names.

    Args:
        spec: Its folder, or `hf://USER/NAME@REV`.
        device: Where the networks run.

    Raises:
        ValueError: A part is missing, or the parts do not fit; the message names `steered.json`.
    """
    file = find_model(spec, STEERED_FILE) / STEERED_FILE
    try:
        return build_steered(read_steered(spec), device)
    except ValueError as error:
        raise ValueError(f"{file}: {error}" if not str(error).startswith(str(file)) else str(error)) from error


def build_steered(described: SteeredDescription, device: torch.device | str = "cpu") -> SteeredPolicy:
    """The policy that is described.

    Raises:
        ValueError: A part is missing, or the parts do not fit.
    """
    world = WorldModel.load(described.world, device)
    policy = load_policy(described.policy, device)
    check_planner(policy, world, described.policy)
    judge = None
    if described.judge is not None:
        judge = load_judge(described.judge, device, views=world.views, size=tuple(world.size))
    numbers = {name: getattr(described, name) for name in ("k", "lookahead", "context", "num_steps")}
    return SteeredPolicy(
        policy,
        find_scorer(described.scorer, judge),
        None if described.scorer == "random" else world,
        sigma=offsets(world, described.spread),
        proposal=find_proposal(described.proposal),
        between=described.scorer != "value",
        **numbers,
    )


def check_planner(policy: Policy, world: WorldModel, name: str) -> None:
    """Check that a policy can be steered in a world model.

    Raises:
        ValueError: It returns no plans, or needs a camera, a state or actions that the world model does not have.
    """
    if not isinstance(policy, Planner):
        steered = isinstance(policy, SteeredPolicy)
        why = "it is steered already" if steered else "it has no method plan, so there are no plans to choose from"
        raise ValueError(f"policy {name}: {why}")
    seen = {f"{IMAGES}{view}": spaces.Box(0, 255, (*world.size, 3), "uint8") for view in world.views}
    if world.state_dim:
        seen[STATE] = spaces.Box(-float("inf"), float("inf"), (world.state_dim,))
    check_fits(policy, spaces.Dict(seen), spaces.Box(-float("inf"), float("inf"), (world.action_dim,)), name)


def steered_fingerprint(spec: str | Path) -> str:
    """A hash that changes with the settings of a steered policy and with every model and module that it names.

    Raises:
        ValueError: A part is missing.
    """
    described = read_steered(spec)
    settings = {field.name: getattr(described, field.name) for field in fields(described) if field.name not in PARTS}
    parts = [json.dumps(settings, sort_keys=True), policy_fingerprint(described.policy), fingerprint(described.world)]
    if described.judge is not None:
        parts.append(judge_fingerprint(described.judge))
    for what, known in (("proposal", PROPOSALS), ("scorer", SCORERS)):
        name = getattr(described, what)
        if name not in known:
            parts.append(source_hash(name, what))
    return sha256("\n".join(parts).encode()).hexdigest()[:16]


def _split(spec: str) -> tuple[str, str]:
    """`lerobot:` or nothing, and the rest."""
    is_prefixed = spec.startswith(PREFIX) and not Path(spec).exists()
    return (PREFIX, spec.removeprefix(PREFIX)) if is_prefixed else ("", spec)


def _written(spec: str | None, folder: Path) -> str | None:
    """The name of a part in a file in `folder`."""
    if spec is None:
        return None
    prefix, name = _split(spec)
    path = Path(name)
    if is_shipped(path) or not path.exists():
        return spec
    relative = Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    return prefix + (relative if relative.startswith(".") else f"./{relative}")


def _found(spec: str | None, folder: Path) -> str | None:
    """The name of a part of a file in `folder`, as a process can use it."""
    if spec is None:
        return None
    prefix, name = _split(spec)
    return prefix + os.path.normpath(folder / name) if name.startswith(".") else spec
