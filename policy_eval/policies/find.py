"""Folders of policies, by name."""

from collections.abc import Sequence
from pathlib import Path

from worldmodel.model_folder import shipped


def find_policies(folders: Sequence[Path]) -> dict[str, Path]:
    """Policies by name, in the order of `folders`.

    Raises:
        ValueError: A folder neither is nor holds a policy, or two have the same name.
    """
    found: dict[str, Path] = {}
    for folder in map(shipped, folders):
        inside = [folder] if (folder / "policy.json").is_file() else []
        inside = inside or sorted(file.parent for file in folder.glob("*/policy.json"))
        if not inside:
            raise ValueError(f"{folder}: no policy here, policy.json is missing")
        for each in inside:
            name = each.resolve().name
            if name in found:
                raise ValueError(f"two policies are called {name!r}: {found[name]} and {each}")
            found[name] = each
    return found
