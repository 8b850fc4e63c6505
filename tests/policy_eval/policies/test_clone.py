import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_episodes import DrawnEpisodes
from interrupting import interrupt_when
from square_world import SquareEnv, write_episodes

from policy_eval.evaluation import evaluate
from policy_eval.policies.clone import CloneConfig, clone, read_demonstrations
from policy_eval.policies.cloned import ClonedPolicy, PolicyConfig
from policy_eval.policies.keypoints import KeypointEncoder
from policy_eval.policies.policy import CallablePolicy, Policy
from policy_eval.real_envs import RealEnvs
from worldmodel.cli import main
from worldmodel.data import open_episodes
from worldmodel.dreams.starts import Starts

RELATIVE = {0: 0, 1: 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Sixteen episodes of which every fourth fails."""
    return write_episodes(tmp_path_factory.mktemp("square") / "data", 16, failures=1)


def policy(**settings) -> ClonedPolicy:
    torch.manual_seed(0)
    config = {"views": ("top",), "size": (16, 16), "action_dim": 2, "state_dim": 2} | settings
    return ClonedPolicy(PolicyConfig(**config)).eval()


def seen(states: list[list[float]]) -> dict[str, torch.Tensor]:
    pictures = torch.zeros(len(states), 16, 16, 3, dtype=torch.uint8)
    return {"observation.images.top": pictures, "observation.state": torch.tensor(states)}


@pytest.mark.slow
def test_a_policy_learns_to_push_the_square_to_the_right(data, tmp_path):
    """Twelve demonstrations are enough, and standing still is not."""
    config = CloneConfig(data, tmp_path / "policy", steps=120, relative_to=RELATIVE)
    starts = Starts(open_episodes(data))
    envs = RealEnvs(SquareEnv, starts, num_envs=16)
    learnt = evaluate(ClonedPolicy.load(clone(config)), envs, horizon=7)
    assert learnt.mean == 1.0
    still = CallablePolicy(lambda observation: observation["observation.state"])
    assert evaluate(still, envs, horizon=7).mean == 0.0
    assert json.loads((tmp_path / "policy/training.json").read_text())["demonstrations"] == 12
    assert "At the frames that it learned from" in (tmp_path / "policy/report.html").read_text()


@pytest.mark.slow
def test_an_interrupted_command_leaves_nothing(data, tmp_path, capsys):
    call = ["clone", "--data", str(data), "--out", str(tmp_path / "policy"), "--steps", "1000000"]
    soon = time.monotonic() + 2
    with interrupt_when(lambda: time.monotonic() > soon, signal.SIGTERM):
        assert main(call) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "worldmodel clone: interrupted"
    assert list(tmp_path.iterdir()) == []


def test_demonstrations_end_with_success_and_failures_are_left_out(data):
    source = open_episodes(data)
    config = CloneConfig(data, Path(), demos=3, chunk=2, relative_to=RELATIVE)
    rows = read_demonstrations(config, source, ("wrist",))
    first = [float(source.read(e, 0, 1).states[0, 0]) for e in range(3)]
    lengths = [int(np.ceil((10 - x) / 2)) for x in first]
    assert rows.episodes == 3 and len(rows.targets) == sum(lengths)
    assert rows.frames.shape[1:] == (1, 16, 16, 3)
    start = lengths[0]
    assert torch.equal(rows.states[start], source.read(1, 0, 1).states[0])
    # Actions are x + 2, so the second planned one lies 4 from the state, but for the last row,
    # where the only action that is left is repeated.
    assert rows.targets[:, 0].unique(dim=0).tolist() == [[2.0, 0.0]]
    assert rows.targets[: start - 1, 1].unique(dim=0).tolist() == [[4.0, 0.0]]
    assert rows.targets[start - 1, 1].tolist() == [2.0, 0.0]


def test_without_labels_every_episode_is_a_demonstration_to_its_end():
    source = DrawnEpisodes([4, 6])
    rows = read_demonstrations(CloneConfig(Path("d"), Path("o")), source, ("top",))
    assert (rows.episodes, len(rows.targets)) == (2, 3 + 5)


def test_the_size_of_its_pictures_can_be_chosen(data, tmp_path):
    clone(CloneConfig(data, tmp_path / "small", steps=1, size=(8, 8), batch=2))
    assert ClonedPolicy.load(tmp_path / "small").config.size == (8, 8)


def test_slow_successes_are_left_out(data):
    """From x = 5 it takes three steps, from x = 0 five."""
    source = open_episodes(data)
    first = [float(source.read(e, 0, 1).states[0, 0]) for e in range(16) if e % 4 < 3]
    quick = [x for x in first if np.ceil((10 - x) / 2) <= 3]
    rows = read_demonstrations(CloneConfig(data, Path(), longest=3), source, ("top",))
    assert 0 < rows.episodes == len(quick) < len(first)


def test_long_displacements_are_capped(data):
    config = CloneConfig(data, Path(), demos=2, relative_to=RELATIVE, cap=0.5)
    rows = read_demonstrations(config, open_episodes(data), ("top",))
    torch.testing.assert_close(rows.targets[:, 0].norm(dim=-1), torch.full((len(rows.targets),), 0.5))


def test_a_relative_policy_adds_the_state():
    one = policy(relative_to={1: 0})
    one.reset([0, 1])
    actions = one.act(seen([[3.0, 5.0], [3.0, 5.0]]))
    one.config.relative_to.clear()
    one.reset([0, 1])
    plain = one.act(seen([[3.0, 5.0], [3.0, 5.0]]))
    torch.testing.assert_close(actions - plain, torch.tensor([[0.0, 3.0], [0.0, 3.0]]))


def test_states_are_seen_and_actions_told_in_the_units_of_the_data():
    """A state of 7 is 2 deviations of 3 above its mean of 1; a normalised action of 2 is 3 x 2 + 1."""
    one = policy(relative_to={0: 1})
    one.state_mean.fill_(1.0)
    one.state_std.fill_(3.0)
    one.action_mean.copy_(torch.tensor([1.0, 0.0]))
    one.action_std.copy_(torch.tensor([3.0, 0.5]))
    states = torch.tensor([[7.0, -2.0]])
    features = one.features(torch.zeros(1, 1, 16, 16, 3, dtype=torch.uint8), states)
    assert features[0, -2:].tolist() == [2.0, -1.0]
    assert one.commands(torch.tensor([[[2.0, 2.0]]]), states).tolist() == [[[7.0 - 2.0, 1.0]]]


def test_a_chunk_is_carried_out_before_the_policy_looks_again():
    one = policy(chunk=3)
    assert isinstance(one, Policy)
    one.reset([0])
    first = [one.act(seen([[1.0, 1.0]]))]
    first += [one.act(seen([[9.0, 9.0]])) for _ in range(3)]
    planned = one(torch.zeros(1, 1, 16, 16, 3, dtype=torch.uint8), torch.ones(1, 2))
    torch.testing.assert_close(torch.stack(first[:3], 1), planned)
    one.reset([0])
    torch.testing.assert_close(one.act(seen([[9.0, 9.0]])), first[3])


def test_noise_depends_on_the_seed_of_the_stream_alone():
    quiet, noisy = policy(), policy(action_noise=2.0)
    many = seen([[1.0, 1.0]] * 400)
    quiet.reset(range(400))
    noisy.reset(range(400))
    noise = noisy.act(many) - quiet.act(many)
    assert noise.std().item() == pytest.approx(2.0, rel=0.1)
    assert noise.mean().abs().item() < 0.3
    again = policy(action_noise=2.0)
    again.reset([7])
    one = seen([[1.0, 1.0]])
    quiet.reset([7])
    torch.testing.assert_close((again.act(one) - quiet.act(one))[0], noise[7])
    assert not torch.equal((again.act(one) - quiet.act(one))[0], noise[7])


def test_streams_go_on_as_before_when_others_have_ended():
    """The second of three ends in the middle of a plan: plan and noise of the others are the same."""
    one = policy(chunk=2, action_noise=0.5)
    places = [[1.0, 1.0], [2.0, 5.0], [3.0, 7.0]]
    one.reset([3, 4, 5])
    expected = torch.stack([one.act(seen(places)) for _ in range(4)])
    one.reset([3, 4, 5])
    one.act(seen(places))
    one.keep([0, 2])
    found = torch.stack([one.act(seen([places[0], places[2]])) for _ in range(3)])
    torch.testing.assert_close(found, expected[1:, [0, 2]])


def test_keypoints_are_the_expected_coordinates():
    """One bright pixel of a 4 x 4 map that goes straight through lies at x = 1, y = -1/3."""
    encoder = KeypointEncoder(num_keypoints=1)
    encoder.convolutions = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1, bias=False))
    encoder.convolutions[0].weight.data.fill_(20.0)
    frames = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    frames[0, 1, 3] = 255
    x, y, highest = encoder(frames)[0].tolist()
    assert (x, y) == pytest.approx((1.0, -1 / 3), abs=1e-5) and highest == pytest.approx(1.0)


def test_a_saved_policy_acts_alike(tmp_path):
    one = policy(relative_to=RELATIVE, chunk=2)
    one.action_std.fill_(3.0)
    one.save(tmp_path, dtype=torch.float32)
    again = ClonedPolicy.load(tmp_path)
    assert again.config == one.config
    for each in (one, again):
        each.reset([0])
    torch.testing.assert_close(again.act(seen([[1.0, 2.0]])), one.act(seen([[1.0, 2.0]])))
    one.save(tmp_path)
    assert (tmp_path / "weights.safetensors").stat().st_size < 150_000


def test_what_does_not_fit_is_named(data, tmp_path):
    def with_config(**change):
        return lambda: clone(CloneConfig(data, tmp_path / "out", **change))

    def broken(edit):
        def call():
            policy().save(tmp_path / "broken")
            edit(tmp_path / "broken")
            ClonedPolicy.load(tmp_path / "broken")

        return call

    def narrow(folder):
        file = folder / "policy.json"
        file.write_text(file.read_text().replace('"width": 128', '"width": 64'))

    blind = policy()
    blind.reset([0])
    no_picture = {"observation.state": torch.zeros(1, 2)}
    for call, message in (
        (with_config(demos=13), "12 successful episodes, 13 needed"),
        (with_config(views=("front",)), r"views are \('top', 'wrist'\), --views is \('front',\)"),
        (with_config(relative_to={0: 2}), "relative_to has 0: 2, the data has 2 action dims"),
        (with_config(relative_to=RELATIVE, proprioception=False), "proprioception is off"),
        (lambda: ClonedPolicy.load(tmp_path / "none"), "none: no such folder"),
        (broken(narrow), "head.0.bias is"),
        (broken(lambda f: (f / "weights.safetensors").unlink()), "weights.safetensors: missing"),
        (lambda: blind.act(no_picture), r"observation.images.top of shape \(16, 16, 3\), got None"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


OF_THE_WRIST = ("--steps", "3", "--demos", "2", "--views", "wrist", "--no-proprioception", "--action-noise", "0.5")


def test_the_command_clones(data, tmp_path, capsys):
    assert main(["clone", "--data", str(data), "--out", str(tmp_path / "policy"), *OF_THE_WRIST]) == 0
    assert "from 2 demonstrations" in capsys.readouterr().out
    config = ClonedPolicy.load(tmp_path / "policy").config
    assert (config.views, config.state_dim, config.action_noise) == (("wrist",), 0, 0.5)
