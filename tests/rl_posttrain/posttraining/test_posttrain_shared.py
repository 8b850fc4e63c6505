"""Post-training in two processes: the starts are those of one, each with all its candidates, and so is the gradient."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from in_processes import in_processes
from places import LEROBOT_V30
from tiny import tiny_world

from rl_posttrain.posttraining.config import PosttrainConfig
from rl_posttrain.posttraining.pathwise.config import PathwiseConfig
from rl_posttrain.posttraining.pathwise.terms import NO_TERMS, PictureTerms
from rl_posttrain.posttraining.train import build_update, next_batch, parts_of
from rl_posttrain.rewards.mix import RewardMix
from rl_posttrain.rewards.realism import Realism
from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.model.precision import full_precision
from worldmodel.training.accelerator import joined, start_accelerator
from worldmodel.training.share import average_gradients, backward_in_parts, share


@pytest.fixture(scope="module")
def source():
    return EpisodeCache(open_episodes(LEROBOT_V30, (16, 24)))


def config(**settings) -> PosttrainConfig:
    small = {"groups": 4, "candidates": 3, "context": 2, "prefix": 3, "branch": 2, "num_steps": 2}
    pathwise = PathwiseConfig(frames=4, passes=1, pictures=5)
    settings = {**small, "pathwise": pathwise, **settings}
    return PosttrainConfig(world=Path("world"), data=LEROBOT_V30, out=Path("out"), **settings)


def brightness(rollout) -> torch.Tensor:
    return rollout.imagined.frames.float().mean(dim=(1, 2, 3, 4, 5))


def first_gradients(options: PosttrainConfig, source) -> tuple[torch.Tensor, float]:
    """The gradient of the world model and of a discriminator in the first update, and the reward to write down."""
    world, old = tiny_world(), tiny_world()
    terms = NO_TERMS
    if options.differentiable:
        torch.manual_seed(1)
        realism = Realism()
        terms = PictureTerms({"realism": realism}, {"realism": 0.5}, realism)
    mix = RewardMix({"fidelity": brightness}, {"fidelity": 1.0}, None)
    accelerator = start_accelerator("cpu", Path("out"), "none")
    model, _ = joined(accelerator, build_update(options, world, old, world, terms), [], unused=True)
    batch, row = next_batch(options, old, source, range(6), mix, 0)
    backward_in_parts(accelerator, model, parts_of(batch, options.accumulate))
    learned = [each for network in terms.learned.values() for each in network.parameters()]
    average_gradients(learned)
    grads = [each.grad.flatten() for each in (*world.parameters(), *learned) if each.grad is not None]
    return torch.cat(grads).double(), row.get("reward", 0.0)


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "nft", "keep": 1},
        {"objective": "pathwise"},
        pytest.param({"objective": "combined", "kl_weight": 0.1}, marks=pytest.mark.slow),
        pytest.param({"objective": "flow-grpo", "branch": 1}, marks=pytest.mark.slow),
        pytest.param({"objective": "teacher-forced"}, marks=pytest.mark.slow),
    ],
)
def test_two_processes_have_the_first_gradient_of_one(options, source):
    ((alone, reward),) = in_processes(lambda: first_gradients(config(**options), source), 1)
    (first, one), (second, other) = in_processes(lambda: first_gradients(config(**options), source))
    assert torch.equal(first, second)
    assert (first - alone).norm() <= 1e-5 * alone.norm() and alone.norm() > 0
    assert (one + other) / 2 == pytest.approx(reward)
    assert options["objective"] in ("pathwise", "teacher-forced") or one != other  # other starts


def test_a_batch_in_parts_has_the_gradient_of_the_whole(source):
    whole, parts = (in_processes(lambda n=n: first_gradients(config(accumulate=n), source)[0], 1)[0] for n in (1, 2))
    assert (parts - whole).norm() <= 1e-5 * whole.norm()
    mix = RewardMix({"fidelity": brightness}, {"fidelity": 1.0}, None)
    batch, _ = next_batch(config(), tiny_world(), source, range(6), mix, 0)
    with pytest.raises(ValueError, match="--accumulate 3 does not divide the 4 starts of a process"):
        parts_of(batch, 3)
    (some,), (rest,) = parts_of(batch, 2)
    assert torch.equal(torch.cat([some.branches.sample, rest.branches.sample]), batch.branches.sample)
    assert torch.equal(torch.cat([some.good, rest.good]), batch.good)
    assert torch.equal(torch.cat([some.branches.clip.frames, rest.branches.clip.frames]), batch.branches.clip.frames)


def test_every_process_has_starts_of_its_own(source):
    mix = RewardMix({"fidelity": brightness}, {"fidelity": 1.0}, None)

    def drawn() -> dict[str, torch.Tensor]:
        batch, _ = next_batch(config(), tiny_world(), source, range(6), mix, 3)
        found = {"tau": batch.tau, "noise": batch.noise, "past": batch.branches.past}
        return found | {"frames": batch.branches.clip.frames, "sample": batch.branches.sample}

    with full_precision():
        whole = drawn()
    halves = in_processes(drawn)
    for name, tensor in whole.items():
        found = torch.cat([half[name] for half in halves])
        torch.testing.assert_close(found, tensor, atol=1e-4, rtol=1e-4, msg=name)
    odd = replace(config(), groups=3)
    refused = in_processes(lambda: _refused(lambda: next_batch(odd, tiny_world(), source, range(6), mix, 0)))
    assert refused == ["--groups 3 does not divide by 2 processes"] * 2


def _refused(call) -> str:
    try:
        call()
    except ValueError as error:
        return str(error)
    return f"nothing was refused in process {share().index}"
