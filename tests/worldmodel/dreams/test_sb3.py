import numpy as np
import pytest
from drawn_episodes import SEEDS, DrawnEpisodes, never
from gymnasium.vector import AutoresetMode
from tiny import tiny_world

from policy_eval.evaluation import evaluate
from policy_eval.policies.policy import AgentPolicy
from worldmodel.dreams.env import DreamEnv
from worldmodel.dreams.starts import Starts

stable_baselines3 = pytest.importorskip("stable_baselines3", reason="the extra rl is missing")

from stable_baselines3.common.vec_env import VecMonitor  # noqa: E402

from worldmodel.dreams.sb3 import StableBaselinesEnv, plain_key  # noqa: E402


def dream(mode=AutoresetMode.SAME_STEP) -> DreamEnv:
    """Pictures of 40 pixels, the least that PPO's convolutions take."""
    world = tiny_world(size=(40, 40), relative_to={})
    episodes = DrawnEpisodes([5, 6, 7, 8], size=(40, 40), reset_seeds=SEEDS)
    return DreamEnv(world, Starts(episodes), never, num_envs=2, horizon=7, autoreset_mode=mode)


@pytest.mark.slow
def test_ppo_trains_for_200_steps_and_can_be_evaluated():
    agent = stable_baselines3.PPO(
        "MultiInputPolicy",
        VecMonitor(StableBaselinesEnv(dream())),
        n_steps=25,
        batch_size=50,
        n_epochs=1,
        seed=0,
        device="cpu",
        policy_kwargs={"features_extractor_kwargs": {"cnn_output_dim": 16}},
    )
    before = agent.policy.mlp_extractor.policy_net[0].weight.detach().clone()
    agent.learn(200)
    assert agent.num_timesteps == 200
    assert not np.array_equal(before, agent.policy.mlp_extractor.policy_net[0].weight.detach())
    assert {episode["l"] for episode in agent.ep_info_buffer} == {7}
    scores = evaluate(AgentPolicy(agent, keys=plain_key), dream(AutoresetMode.DISABLED), horizon=3)
    assert scores.steps.tolist() == [3] * 4


def test_the_end_of_an_episode_reaches_stable_baselines():
    envs = StableBaselinesEnv(dream())
    envs.seed(3)
    first = envs.reset()
    assert first["observation_state"].shape == (2, 2)
    for _ in range(7):
        observation, _, dones, infos = envs.step(np.zeros((2, 2), np.float32))
    assert dones.all()
    assert all(info["TimeLimit.truncated"] and not info["success"] for info in infos)
    last = infos[0]["terminal_observation"]
    assert set(last) == set(observation) and not np.array_equal(
        last["observation_images_top"], observation["observation_images_top"][0]
    )
    envs.seed(3)
    np.testing.assert_array_equal(envs.reset()["observation_state"], first["observation_state"])


def test_another_autoreset_mode_is_refused():
    with pytest.raises(ValueError, match="needs autoreset"):
        StableBaselinesEnv(dream(AutoresetMode.DISABLED))
