"""Policies as the command line takes them: by folder, `module:name`, `lerobot:FOLDER` or `ws://HOST:PORT`."""

import importlib
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from policy_eval.policies.cloned import ClonedPolicy
from policy_eval.policies.lerobot import PREFIX, LeRobotPolicy, check_folder, is_lerobot, lerobot_fingerprint, name_of
from policy_eval.policies.policy import Policy
from policy_eval.policies.remote import RemotePolicy, is_url
from worldmodel.envs.policy import resolve_policy, watches
from worldmodel.files import shipped
from worldmodel.model.folder import find_optional, fingerprint
from worldmodel.resolve import is_spec, resolve, source_hash

POLICY_FILE = "policy.json"
STEERED_FILE = "steered.json"
FILES = (POLICY_FILE, STEERED_FILE)
"""Files by which the folder of a policy is known."""
STEERING = "policy_eval.steering.saved"
"""Module of steered policies. A steered policy consists of a policy, a judge and a world model, so the module stands
above this one; it is imported when such a policy is loaded."""


def load_policy(spec: str | Path, device: torch.device | str = "cpu") -> Policy:
    """Load a policy from its folder or by its name.

    Args:
        spec: Folder of a cloned or steered policy, `hf://USER/NAME@REV`, `module:name` of one of yours,
            `lerobot:FOLDER` of one that lerobot saved, or `ws://HOST:PORT` of one behind a server; see
            `docs/extend/policy.md`. If a folder has that name, the folder is used.
        device: Where a cloned policy or one of lerobot runs. Other policies get tensors on the CPU and
            choose themselves.

    Raises:
        ValueError: There is no policy at that folder or name; the message says what was found
            instead.
    """
    if is_remote(spec):
        return RemotePolicy(str(spec))
    if is_saved_by_lerobot(spec):
        return LeRobotPolicy.load(str(spec).removeprefix(PREFIX), device)
    if not is_yours(spec):
        return _steering().load_steered(spec, device) if is_steered(spec) else ClonedPolicy.load(spec, device)
    policy = resolve_policy(str(spec))
    if watches(policy):
        raise ValueError(
            f"policy {spec}: it has a method watch, so it needs the simulator and can only record; in trials a "
            "policy gets only the observations of a robot"
        )
    return policy


def find_policies(specs: Sequence[str | Path]) -> dict[str, str | Path]:
    """Policies by name, in the order of `specs`; `load_policy` takes each.

    Args:
        specs: Folders of policies, folders of such folders, `hf://USER/NAME@REV`, `module:name`,
            `lerobot:FOLDER` and `ws://HOST:PORT`. A policy has the name of its folder (RUN-STEP for a checkpoint of
            lerobot's training), or the name after the last slash or the colon, or HOST-PORT.

    Raises:
        ValueError: A folder neither is nor holds a policy, a module has no such name, no server answers, or
            two policies have the same name.
    """
    found: dict[str, str | Path] = {}
    for spec in specs:
        for name, each in _inside(spec).items():
            if name in found:
                raise ValueError(f"two policies are called {name!r}: {found[name]} and {each}")
            found[name] = each
    return found


def policy_fingerprint(spec: str | Path) -> str:
    """A hash that changes with a policy: of its files, of the source text of its module, or of a server's metadata.

    That of a steered policy changes with every model that it names, too.

    Each process asks a server only once.

    Raises:
        ValueError: There is no policy at that folder or name.
    """
    if is_remote(spec):
        return _metadata_hash(str(spec))
    if is_saved_by_lerobot(spec):
        return lerobot_fingerprint(str(spec).removeprefix(PREFIX))
    if is_yours(spec):
        return source_hash(str(spec), "policy")
    return _steering().steered_fingerprint(spec) if is_steered(spec) else fingerprint(spec)


def is_yours(spec: str | Path) -> bool:
    """Whether `spec` is `module:name`, and neither a folder nor a policy of lerobot."""
    return is_spec(str(spec)) and not is_lerobot(spec) and not Path(spec).exists()


def is_saved_by_lerobot(spec: str | Path) -> bool:
    """Whether `spec` is `lerobot:FOLDER`, and no folder has this whole name."""
    return is_lerobot(spec) and not Path(spec).exists()


def is_steered(spec: str | Path) -> bool:
    """Whether `spec` is the folder of a steered policy, here or on the hub; see `worldmodel steer`."""
    return find_optional(spec, STEERED_FILE) is not None


def _steering() -> Any:
    return importlib.import_module(STEERING)


def is_remote(spec: str | Path) -> bool:
    """Whether `spec` is the address of a server, and no folder has this name."""
    return is_url(spec) and not Path(spec).exists()


def _inside(spec: str | Path) -> dict[str, str | Path]:
    """The policies of one folder or name."""
    text = str(spec)
    if is_remote(spec):
        _metadata_hash(text)
        return {_file_name(text): text}
    if is_saved_by_lerobot(spec):
        check_folder(text.removeprefix(PREFIX))
        return {name_of(text.removeprefix(PREFIX)): text}
    if is_yours(spec):
        resolve(text, "policy")
        return {text.partition(":")[2]: text}
    if text.startswith("hf://"):
        return {text.rpartition("/")[2].partition("@")[0]: text}
    folder = shipped(spec)
    if any((folder / file).is_file() for file in FILES):
        return {folder.resolve().name: folder}
    inside = {path.name: path for path in sorted({file.parent for name in FILES for file in folder.glob(f"*/{name}")})}
    if not inside:
        what = "no policy here, policy.json is missing" if folder.is_dir() else "no such folder, and not module:name"
        hint = f"; one that lerobot saved is named {PREFIX}{spec}" if _of_lerobot(folder) else ""
        raise ValueError(f"policy {spec}: {what}{hint}")
    return inside


def _of_lerobot(folder: Path) -> bool:
    return (folder / "model.safetensors").is_file() and (folder / "config.json").is_file()


def _file_name(url: str) -> str:
    """The address of a server as the name of a file: `ws://robot:8000/act` is `robot-8000-act`."""
    return re.sub(r"[^\w.]+", "-", url.partition("://")[2]).strip("-")


@lru_cache
def _metadata_hash(url: str) -> str:
    """A hash of what a server says about itself."""
    policy = RemotePolicy(url)
    policy.close()
    return sha256(json.dumps(policy.metadata, sort_keys=True, default=str).encode()).hexdigest()[:16]
