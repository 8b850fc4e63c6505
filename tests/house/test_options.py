"""One name for each thing in every command, and one device rule."""

import importlib
from dataclasses import fields, is_dataclass
from typing import get_args

import pytest

from worldmodel.cli import COMMANDS, CONTINUES

OLD = {
    "starts": "data",
    "rollouts": "data",
    "real_starts": "real_data",
    "real_scores": "real",
    "env": "real",
    "environment": "real",
    "json": "out",
    "processes": "workers",
    "num_workers": "workers",
    "checkpoint": "world",
    "batch_size": "batch",
}
KEPT = {
    ("align", "rollouts"): "how many, not which",
    ("align", "real_scores"): "besides the environment, `real`, in which it records",
    ("fidelity", "starts"): "how many windows of an episode",
    ("record", "env"): "positional",
    ("serve", "processes"): "they answer visitors, each its own; `workers` share the work of one command",
}
WITHOUT_A_NETWORK = ("record", "info", "push")
MODELS = ("world", "judge", "policy", "init", "inverse_dynamics", "codec")


def options(name: str) -> dict[str, tuple[object, object]]:
    """Name -> type and default of the options of a command."""
    command = COMMANDS[name]
    config = getattr(importlib.import_module(command.module), command.config)
    while not is_dataclass(config):  # a choice between presets, each annotated
        config = get_args(config)[0]
    return {field.name: (field.type, field.default) for field in fields(config)}


@pytest.mark.parametrize("name", COMMANDS)
def test_options_have_one_name(name):
    wrong = {old: OLD[old] for old in set(options(name)) & set(OLD) if (name, old) not in KEPT}
    assert wrong == {}


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in WITHOUT_A_NETWORK])
def test_every_command_with_a_network_takes_a_device(name):
    assert options(name)["device"] == (str, "auto")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_model_may_come_from_a_hub(name):
    """A `Path` would make `hf:/USER/NAME` of `hf://USER/NAME`."""
    for option, (kind, _) in options(name).items():
        if option in MODELS:
            assert str in get_args(kind), option


@pytest.mark.parametrize("name", COMMANDS)
def test_what_can_be_resumed_can_be_begun_anew(name):
    assert "overwrite" in options(name) or "resume" not in options(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_what_writes_asks_before_it_replaces(name):
    """Apart from commands that compare the settings of what is there, and go on."""
    assert "out" not in options(name) or "overwrite" in options(name) or name in CONTINUES
