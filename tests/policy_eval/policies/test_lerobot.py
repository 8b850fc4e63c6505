import json
from collections import deque
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from gymnasium.vector import AutoresetMode
from square_world import SquareEnv, write_episodes
from tiny import tiny_world
from torch import nn

from policy_eval.evaluation import evaluate
from policy_eval.policies.find import find_policies, load_policy, policy_fingerprint
from policy_eval.policies.lerobot import FILES, LeRobotPolicy, name_of, pictures, sharing_weights
from policy_eval.policies.needs import Needs, check_fits
from policy_eval.real_envs import RealEnvs
from worldmodel.data import open_episodes
from worldmodel.dreams.env import DreamEnv
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Verdict

INPUTS = {"observation.images.top": (3, 8, 12), "observation.state": (2,)}
installed = pytest.mark.skipif(find_spec("lerobot") is None, reason="lerobot is not installed")


class Drawn(nn.Module):
    """With the interface of lerobot's policies: three noisy actions at a time, carried out two by two."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(2))
        self.seen: list[dict] = []
        self.reset()

    def reset(self):
        self.queue = self._action_queue = deque(maxlen=2)

    def select_action(self, batch):
        self.seen.append(batch)
        if not self.queue:
            plan = self.gain * batch["observation.state"] + torch.randn(3, 1, 2)
            self.queue.extend(plan[:2])
        return self.queue.popleft()


def drawn(**settings) -> LeRobotPolicy:
    network = Drawn()
    return LeRobotPolicy(
        network, lambda batch: batch, lambda action: action, settings.pop("inputs", INPUTS), **settings
    )


def seen(streams: int, x: float = 0.0) -> dict[str, torch.Tensor]:
    frames = torch.arange(streams, dtype=torch.uint8)[:, None, None, None].expand(streams, 4, 6, 3)
    state = x + torch.arange(2.0 * streams).reshape(streams, 2)
    return {"observation.images.top": frames, "observation.state": state}


def steps(policy: LeRobotPolicy, seeds: list[int], streams: list[int]) -> torch.Tensor:
    """Four actions `n t a` of some of three streams."""
    policy.reset(seeds)
    all_of_them = [seen(3, x=10.0 * step) for step in range(4)]
    return torch.stack(
        [policy.act({name: values[streams] for name, values in each.items()}) for each in all_of_them], 1
    )


def test_the_actions_of_a_stream_do_not_depend_on_the_other_streams():
    policy = drawn()
    together = steps(policy, [5, 6, 7], [0, 1, 2])
    apart = torch.cat([steps(policy, [5 + stream], [stream]) for stream in range(3)])
    assert torch.equal(together, apart)
    assert torch.equal(together, steps(drawn(), [5, 6, 7], [0, 1, 2]))


def test_it_does_what_it_says():
    policy = drawn()
    policy.reset([5, 6, 7])
    policy.act(seen(3))
    policy.keep([0, 2])
    (said,) = policy.ahead()
    rows = {name: values[[0, 2]] for name, values in seen(3).items()}
    assert torch.equal(policy.act(rows), said) and policy.ahead() == []
    network = policy.networks[0]
    del network._action_queue
    network._queues = {"action": deque([torch.ones(1, 2)])}  # where newer classes have it
    policy.keep([0])
    assert policy.ahead()[0].tolist() == [[1.0, 1.0]]


def test_streams_go_on_as_before_when_others_have_ended():
    """The second of three ends in the middle of a plan; a reset brings it back."""
    policy = drawn()
    expected = steps(policy, [5, 6, 7], [0, 1, 2])
    policy.reset([5, 6, 7])
    policy.act(seen(3))
    policy.keep([0, 2])
    for step in range(1, 4):
        rows = {name: values[[0, 2]] for name, values in seen(3, x=10.0 * step).items()}
        assert torch.equal(policy.act(rows), expected[[0, 2], step])
    assert torch.equal(steps(policy, [5, 6, 7], [0, 1, 2]), expected)


def test_random_numbers_come_from_the_seed_and_the_step_and_leave_those_of_others():
    noise = steps(drawn(), [5, 6, 5], [0, 0, 0])
    assert torch.equal(noise[0], noise[2]) and not torch.equal(noise[0], noise[1])
    first, third = noise[0, 0] - torch.tensor([0.0, 1.0]), noise[0, 2] - torch.tensor([20.0, 21.0])
    assert not torch.allclose(first, third)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    steps(drawn(), [5], [0])
    assert torch.equal(before, torch.get_rng_state())


def test_every_stream_has_a_queue_of_its_own_that_a_reset_empties():
    """The second action of a plan is about the state at the first; noise is at most a few units, states 10 apart."""
    policy = drawn()
    actions = steps(policy, [1, 2, 3], [0, 1, 2]).mean(-1)
    assert torch.allclose(actions[:, 1], actions[:, 0], atol=6) and torch.allclose(actions[:, 3], actions[:, 2], atol=6)
    assert (actions[:, 2] - actions[:, 1] > 10).all()
    policy.reset([1])
    policy.act(seen(1))
    policy.reset([1])
    assert policy.act(seen(1, x=100.0)).mean() > 90


def test_streams_share_the_weights_and_nothing_else():
    one = Drawn()
    other = sharing_weights(one)
    one.queue.append(torch.zeros(1, 2))
    assert other.gain is one.gain and len(other.queue) == 0


def test_what_the_policy_gets():
    policy = drawn()
    policy.reset([0, 1])
    policy.instruct(["push", "lift"])
    policy.act(seen(2, x=3.0))
    (first,), (second,) = (network.seen for network in policy.networks)
    assert (first["task"], second["task"]) == (["push"], ["lift"])
    assert second["observation.images.top"].shape == (1, 3, 8, 12)
    assert second["observation.images.top"].unique().tolist() == [pytest.approx(1 / 255)]
    assert second["observation.state"].tolist() == [[5.0, 6.0]]
    policy.reset([0])
    policy.act(seen(1))
    assert policy.networks[0].seen[-1]["task"] == [""]


def test_processors_come_before_and_after():
    policy = LeRobotPolicy(
        Drawn(),
        lambda batch: batch | {"observation.state": 1000 * batch["observation.state"]},
        lambda action: action + 7,
        {"observation.state": (2,)},
    )
    policy.reset([0])
    torch.testing.assert_close(policy.act(seen(1)), torch.tensor([[7.0, 1007.0]]), atol=5, rtol=0)


def test_pictures_are_resized_with_antialiasing():
    """Of four columns 0, 0, 1, 1 the halves weigh 0.75, 0.75, 0.25, 0 of 1.75: the first is 1/7."""
    frames = torch.zeros(1, 2, 4, 3, dtype=torch.uint8)
    frames[:, :, 2:] = 255
    torch.testing.assert_close(pictures(frames, (1, 2))[0, 0, 0], torch.tensor([1 / 7, 6 / 7]))
    same = pictures(frames, (2, 4))
    assert same.shape == (1, 3, 2, 4) and same[0, 0, 0].tolist() == [0, 0, 1, 1]
    with pytest.raises(
        ValueError, match=r"pictures of \(2, 4\) cannot be resized to \(4, 4\), which has another aspect"
    ):
        pictures(frames, (4, 4))


def test_needs_and_names_of_cameras():
    stated = Needs(action_dim=2, action_low=(0.0, 0.0), action_high=(1.0, 1.0), task=True)
    assert drawn(stated=stated).needs == Needs(
        views={"top": (8, 12)},
        resizes=True,
        state_dim=2,
        action_dim=2,
        action_low=(0.0, 0.0),
        action_high=(1.0, 1.0),
        task=True,
    )
    plain = drawn(inputs={"observation.image": (3, 8, 8)})
    assert (plain.needs.views, plain.needs.state_dim) == ({"observation.image": (8, 8)}, 0)
    renamed = drawn(
        inputs={"observation.image": (3, 8, 12), "observation.state": (2,)},
        keys={"observation.images.top": "observation.image"},
    )
    assert renamed.needs.views == {"top": (8, 12)}
    renamed.reset([0])
    renamed.act(seen(1))
    assert renamed.networks[0].seen[0]["observation.image"].shape == (1, 3, 8, 12)
    with pytest.raises(ValueError, match=r"keys name 'image', the inputs of the policy are observation.images.top, "):
        drawn(keys={"observation.images.top": "image"})
    with pytest.raises(
        ValueError, match=r"needs observation.environment_state; an observation has pictures of cameras"
    ):
        drawn(inputs={"observation.environment_state": (9,)})
    blind = drawn()
    blind.reset([0])
    with pytest.raises(ValueError, match=r"the policy expects observation.images.top, got observation.state"):
        blind.act({"observation.state": torch.zeros(1, 2)})


def saved(folder: Path, *files: str) -> Path:
    folder.mkdir(parents=True)
    for name in files or FILES:
        (folder / name).write_text("{}")
    return folder


def test_folders_names_and_fingerprints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = saved(tmp_path / "outputs" / "act" / "checkpoints" / "050000" / "pretrained_model")
    (run.parents[1] / "last").symlink_to(run.parent, target_is_directory=True)
    plain = saved(tmp_path / "dp")
    specs = ["lerobot:outputs/act/checkpoints/last/pretrained_model", "lerobot:dp"]
    assert list(find_policies(specs)) == ["act-050000", "dp"]
    assert name_of("hf://lerobot/act_aloha@main") == "act_aloha"
    first = policy_fingerprint("lerobot:dp")
    (plain / "README.md").write_text("x")
    assert policy_fingerprint("lerobot:dp") == first
    for name in FILES:
        before = policy_fingerprint("lerobot:dp")
        (plain / name).write_text('{"n_action_steps": 1}')
        assert policy_fingerprint("lerobot:dp") != before
    saved(tmp_path / "old", "config.json", "model.safetensors")
    for spec, message in (
        ("lerobot:none", "none: no such folder"),
        (
            "lerobot:outputs/act",
            r"policy lerobot:outputs/act: config.json is missing; did you mean lerobot:\S*last/pretr",
        ),
        ("lerobot:old", "policy_preprocessor.json is missing; lerobot's script migrate_policy_normalization writes it"),
        ("old", "policy old: no policy here, policy.json is missing; one that lerobot saved is named lerobot:old"),
    ):
        with pytest.raises(ValueError, match=message):
            find_policies([spec])


@pytest.mark.skipif(find_spec("lerobot") is not None, reason="lerobot is installed")
def test_without_lerobot_one_line_says_so(tmp_path):
    folder = saved(tmp_path / "act")
    with pytest.raises(ValueError, match=f"^policy lerobot:{folder}: lerobot is not installed: pip install 'lerobot>="):
        load_policy(f"lerobot:{folder}")


def far(observation) -> Verdict:
    """Success where the state of a dream has gone far to the right."""
    return Verdict(observation.states[:, 0], observation.states[:, 0] > 3.5)


def save_random(folder: Path, kind: str) -> Path:
    """A policy of lerobot with random weights, saved by lerobot."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors

    inputs = {"observation.images.top": PolicyFeature(FeatureType.VISUAL, (3, 32, 32))}
    inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (2,))
    outputs = {"action": PolicyFeature(FeatureType.ACTION, (2,))}
    small = {
        "act": {"dim_model": 32, "n_heads": 2, "dim_feedforward": 32, "chunk_size": 3, "n_action_steps": 3},
        "diffusion": {
            "down_dims": (16, 32),
            "n_groups": 4,
            "num_inference_steps": 3,
            "n_action_steps": 3,
            "horizon": 8,
        },
    }[kind]
    config = make_policy_config(kind, input_features=inputs, output_features=outputs, device="cpu", **small)
    config.pretrained_backbone_weights = None
    torch.manual_seed(0)
    get_policy_class(kind)(config).save_pretrained(folder)
    ones = {"mean": torch.full((3, 1, 1), 0.5), "std": torch.ones(3, 1, 1)}
    moves = {
        "min": torch.zeros(2),
        "max": torch.full((2,), 12.0),
        "mean": torch.full((2,), 6.0),
        "std": torch.full((2,), 3.0),
    }
    stats = {"observation.images.top": ones, "observation.state": moves, "action": moves}
    for processor in make_pre_post_processors(config, dataset_stats=stats):
        processor.save_pretrained(folder)
    return folder


def by_lerobot(folder: Path, observations: list[dict], seed: int) -> torch.Tensor:
    """The actions of lerobot's own loop for one robot."""
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    from worldmodel.streaming.noise import mix_seed

    config = PreTrainedConfig.from_pretrained(folder)
    policy = get_policy_class(config.type).from_pretrained(folder, config=config)
    before, after = make_pre_post_processors(config, pretrained_path=str(folder))
    policy.reset()
    actions = []
    for step, observation in enumerate(observations):
        batch = {"observation.state": observation["observation.state"], "task": ""}
        batch["observation.images.top"] = pictures(observation["observation.images.top"], (32, 32))
        torch.manual_seed(mix_seed(seed, step))
        actions.append(after(policy.select_action(before(batch))))
    return torch.cat(actions)


@installed
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["act", "diffusion"])
def test_real_policies_of_lerobot(kind, tmp_path, capsys):
    """Random weights: like lerobot's own loop, and the same trials with 1 and 8 streams, in simulator and dream."""
    folder = save_random(tmp_path / kind, kind)
    policy = load_policy(f"lerobot:{folder}")
    starts = Starts(open_episodes(write_episodes(tmp_path / "data", 8)))
    real = {number: RealEnvs(SquareEnv, starts, num_envs=number) for number in (1, 8)}
    check_fits(policy, real[1].single_observation_space, real[1].single_action_space, kind)
    assert policy.needs.action_high == (12.0, 12.0) and not policy.needs.task
    clip = starts.clip(range(8))
    observation = {"observation.images.top": clip.frames[:, 0, 0], "observation.state": clip.states[:, 0]}
    moments = [{name: values + step for name, values in observation.items()} for step in range(7)]
    policy.reset(starts.seeds)
    actions = torch.stack([policy.act(moment) for moment in moments], 1)
    for stream in (0, 5):
        alone = [{name: values[stream : stream + 1] for name, values in moment.items()} for moment in moments]
        torch.testing.assert_close(actions[stream], by_lerobot(folder, alone, starts.seeds[stream]))
    world = tiny_world(size=(16, 16))
    settings = {"horizon": 6, "num_steps": 1, "like": SquareEnv(), "autoreset_mode": AutoresetMode.DISABLED}
    dream = {number: DreamEnv(world, starts, far, num_envs=number, **settings) for number in (1, 8)}
    for place, envs, bound in (("simulator", real, 0.0), ("dream", dream, 0.01)):
        one, eight = (evaluate(policy, envs[number], horizon=6) for number in (1, 8))
        differ, apart = int((one.outcomes != eight.outcomes).sum()), abs(one.returns - eight.returns).max()
        with capsys.disabled():
            print(f"\n{kind}, {place}, 1 and 8 streams: {differ} of 8 outcomes differ, returns by at most {apart:.2g}")
        assert differ == 0 and apart <= bound


@installed
@pytest.mark.slow
def test_what_lerobot_does_not_load_is_one_line(tmp_path):
    folder = save_random(tmp_path / "act", "act")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"chunk_size": 5, "n_action_steps": 5}))
    with pytest.raises(ValueError, match=f"^policy lerobot:{folder}: lerobot does not load it: .*") as error:
        load_policy(f"lerobot:{folder}")
    assert "\n" not in str(error.value)
