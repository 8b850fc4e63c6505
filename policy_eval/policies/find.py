"""Policies by folder or by `module:name`, as the command line takes them."""

from collections.abc import Sequence
from pathlib import Path

import torch

from policy_eval.policies.cloned import ClonedPolicy
from policy_eval.policies.policy import Policy
from worldmodel.envs.policy import resolve_policy, watches
from worldmodel.model.folder import shipped
from worldmodel.resolve import is_spec, resolve

POLICY_FILE = "policy.json"


def load_policy(spec: str | Path, device: torch.device | str = "cpu") -> Policy:
    """Load a policy from its folder or by its name.

    Args:
        spec: Folder of a cloned policy, `hf://USER/NAME@REV`, or `module:name` of one of yours; see
            `docs/extend/policy.md`. If a folder has that name, the folder is used.
        device: Where a cloned policy runs. A policy of yours gets tensors on the CPU and chooses itself.

    Raises:
        ValueError: There is no policy at that folder or name; the message says what was found
            instead.
    """
    if not is_yours(spec):
        return ClonedPolicy.load(spec, device)
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
        specs: Folders of policies, folders of such folders, `hf://USER/NAME@REV`, and `module:name`.
            A policy has the name of its folder, or the name after the last slash or the colon.

    Raises:
        ValueError: A folder neither is nor holds a policy, a module has no such name, or two
            policies have the same name.
    """
    found: dict[str, str | Path] = {}
    for spec in specs:
        for name, each in _inside(spec).items():
            if name in found:
                raise ValueError(f"two policies are called {name!r}: {found[name]} and {each}")
            found[name] = each
    return found


def is_yours(spec: str | Path) -> bool:
    """Whether `spec` is `module:name`, and not a folder."""
    return is_spec(str(spec)) and not Path(spec).exists()


def _inside(spec: str | Path) -> dict[str, str | Path]:
    """The policies of one folder or name."""
    if is_yours(spec):
        resolve(str(spec), "policy")
        return {str(spec).partition(":")[2]: str(spec)}
    if str(spec).startswith("hf://"):
        return {str(spec).rpartition("/")[2].partition("@")[0]: str(spec)}
    folder = shipped(spec)
    if (folder / POLICY_FILE).is_file():
        return {folder.resolve().name: folder}
    inside = {file.parent.name: file.parent for file in sorted(folder.glob(f"*/{POLICY_FILE}"))}
    if not inside:
        what = "no policy here, policy.json is missing" if folder.is_dir() else "no such folder, and not module:name"
        raise ValueError(f"policy {spec}: {what}")
    return inside
