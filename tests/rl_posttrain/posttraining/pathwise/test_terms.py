"""Which rewards with a gradient a run has, and what is said about those that it has not."""

import textwrap
from dataclasses import replace

import pytest
import torch
from tiny import tiny_world

from policy_eval.judge.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from rl_posttrain.posttraining.pathwise.config import PathwiseConfig
from rl_posttrain.posttraining.pathwise.terms import build_terms, terms_read

QUIET = PathwiseConfig(perceptual=0.0)


@pytest.fixture
def mine(tmp_path, monkeypatch) -> str:
    """The name of a module with a reward, in the current folder."""
    name = f"pictures_{abs(hash(tmp_path))}"
    text = "def bright(seen):\n    return seen.predicted.mean()\n\nrealism = bright\n"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.chdir(tmp_path)
    return name


def test_rewards_without_weight_or_input_are_not_there(tmp_path):
    world = tiny_world()
    terms = build_terms(QUIET, world, None)
    assert set(terms.rewards) == {"realism"}
    assert terms.weights["realism"] == 0.5
    assert set(terms.learned) == {"realism"}
    assert len(terms.optimizers(1e-3)) == 1
    nothing = build_terms(replace(QUIET, realism=0.0), world, None)
    assert (nothing.rewards, nothing.learned, nothing.optimizers(1e-3)) == ({}, {}, [])
    dynamics = InverseDynamicsConfig(("top", "wrist"), (16, 24), 2, {0: 0, 1: 1}, keypoints=4, width=8)
    InverseDynamics(dynamics).save(tmp_path / "dynamics")
    decoded = build_terms(QUIET, world, tmp_path / "dynamics").rewards["agreement"].dynamics
    assert not any(weight.requires_grad for weight in decoded.parameters())


def test_a_missing_trunk_is_said_and_noted(monkeypatch, capsys):
    monkeypatch.setattr("worldmodel.fidelity.perceptual.absent", lambda *modules: modules[0])
    terms = build_terms(PathwiseConfig(realism=0.0), tiny_world(), None)
    assert terms.rewards == {}
    said = capsys.readouterr().out
    assert "The perceptual reward is left out" in said
    assert "pip install 'worldmodel[perceptual]'" in said
    assert terms_read(PathwiseConfig()) == {"pathwise.perceptual": "left out"}
    assert terms_read(QUIET) == {}


def test_rewards_of_the_user(mine):
    config = replace(QUIET, extra=(f"{mine}:bright=-0.2",))
    terms = build_terms(config, tiny_world(), None, {"dark": (lambda seen: -seen.predicted.mean(), 0.3)})
    assert set(terms.rewards) == {"realism", "bright", "dark"}
    assert (terms.weights["bright"], terms.weights["dark"]) == (-0.2, 0.3)
    assert terms_read(config)["pathwise.extra"].startswith(f"{mine}:bright=-0.2 ")
    with pytest.raises(ValueError, match="two rewards are called 'realism'"):
        build_terms(replace(QUIET, realism=0.0, extra=(f"{mine}:realism=1",)), tiny_world(), None)
    with pytest.raises(ValueError, match="two rewards are called 'bright'"):
        build_terms(config, tiny_world(), None, {"bright": (lambda seen: seen.predicted.mean(), 0.3)})
    with pytest.raises(ValueError, match=r"--pathwise\.extra x:y: has no weight"):
        build_terms(replace(QUIET, extra=("x:y",)), tiny_world(), None)


def test_an_autoencoder_is_refused_only_where_a_reward_looks_at_pixels():
    world = tiny_world()
    world.codec = torch.nn.Identity()
    with pytest.raises(ValueError, match=r"rewards with a gradient \(realism\) look at pixels"):
        build_terms(QUIET, world, None)
    assert build_terms(replace(QUIET, realism=0.0), world, None).rewards == {}
