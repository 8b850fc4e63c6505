import numpy as np
import pytest
import torch
from drawn_episodes import SEEDS, DrawnEpisodes, TellingWorld, never
from drawn_episodes import tiny_world as fresh_world
from gymnasium.vector import AutoresetMode
from tiny import tiny_world

from policy_eval.evaluation import evaluate
from policy_eval.policies.policy import AgentPolicy
from worldmodel.dreams.env import DreamEnv
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Verdict
from worldmodel.streaming.state import Observation

stable_baselines3 = pytest.importorskip("stable_baselines3", reason="the extra rl is missing")

from stable_baselines3.common.vec_env import VecMonitor  # noqa: E402

from worldmodel.dreams.sb3 import StableBaselinesEnv, plain_key  # noqa: E402


def dream(mode=AutoresetMode.SAME_STEP, *, judge=never, normalise_actions=True, horizon=7) -> DreamEnv:
    """Pictures of 40 pixels, the least that PPO's convolutions take."""
    world = tiny_world(size=(40, 40), relative_to={})
    episodes = DrawnEpisodes([5, 6, 7, 8], size=(40, 40), reset_seeds=SEEDS)
    return DreamEnv(
        world,
        Starts(episodes),
        judge,
        num_envs=2,
        horizon=horizon,
        autoreset_mode=mode,
        normalise_actions=normalise_actions,
    )


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
    raw = dream(AutoresetMode.DISABLED, normalise_actions=False)
    policy = AgentPolicy(agent, keys=plain_key, bounds=(raw.action_low, raw.action_high))
    scores = evaluate(policy, raw, horizon=3)
    assert scores.steps.tolist() == [3] * 4


def test_the_end_of_an_episode_reaches_stable_baselines():
    envs = StableBaselinesEnv(dream())
    envs.seed(3)
    first = envs.reset()
    assert first["observation_state"].shape == (2, 2)
    for _ in range(7):
        observation, _, dones, infos = envs.step(np.zeros((2, 2), np.float32))
    assert dones.all()
    assert all(info["TimeLimit.truncated"] and not info["is_success"] for info in infos)
    last = infos[0]["terminal_observation"]
    assert set(last) == set(observation) and not np.array_equal(
        last["observation_images_top"], observation["observation_images_top"][0]
    )
    envs.seed(3)
    np.testing.assert_array_equal(envs.reset()["observation_state"], first["observation_state"])


def test_another_autoreset_mode_is_refused():
    with pytest.raises(ValueError, match="needs autoreset"):
        StableBaselinesEnv(dream(AutoresetMode.DISABLED))


def bright(observation: Observation) -> Verdict:
    """Success in pictures brighter than 100, and the brightness as the reward."""
    grey = observation.frames.float().mean((1, 2, 3, 4))
    return Verdict(grey / 255, grey > 100)


def telling(**options) -> DreamEnv:
    """Dreams that become brighter by the first dim of the raw action, which is within -3..3."""
    world = TellingWorld(fresh_world(views=("top",), relative=False).config).eval()
    episodes = DrawnEpisodes(
        [4] * 4,
        lambda episode, frame: 90 + 0 * frame,
        action=lambda episode, frame: 3.0 * (frame - 1),
        views=("top",),
        reset_seeds=SEEDS,
    )
    return DreamEnv(world, Starts(episodes), bright, normalise_actions=True, **options)


def greys(observation: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The brightness of the picture alone."""
    grey = observation["observation.images.top"].mean((1, 2, 3), keepdims=True)[:, :, 0, 0]
    return {"grey.level": (grey / 10 - 9).astype(np.float32)}


def test_a_success_reaches_stable_baselines():
    envs = VecMonitor(StableBaselinesEnv(telling(num_envs=2, horizon=4)), info_keywords=("is_success",))
    envs.reset()
    infos = []
    for _ in range(4):
        infos.append(envs.step(np.array([[1, 0], [-1, 0]], np.float32))[3])
    assert [info[0]["is_success"] for info in infos] == [False, False, False, True]  # 93, 96, 99, 102
    assert not any(info[1]["is_success"] for info in infos)
    last = infos[-1][0]
    assert last["episode"]["l"] == 4 and last["episode"]["is_success"] is True
    assert last["episode"]["r"] == pytest.approx((93 + 96 + 99 + 102) / 255, rel=1e-5)
    assert last["TimeLimit.truncated"] is False and last["terminal_observation"]["observation_images_top"].max() == 102


def test_attributes_are_those_of_the_dream():
    envs = StableBaselinesEnv(dream())
    assert envs.has_attr("horizon") and envs.get_attr("horizon") == [7, 7]
    assert not envs.has_attr("compute_reward")
    for ask in (lambda: envs.get_attr("x"), lambda: envs.set_attr("x", 1), lambda: envs.env_method("x")):
        with pytest.raises(AttributeError, match="x"):
            ask()
    assert envs.render_mode == "rgb_array"
    assert envs.seed(5) == [5, 6]
    envs.reset()
    assert envs.reset_infos == [{"success": False, "is_success": False}] * 2
    assert [picture.shape for picture in envs.get_images()] == [(40, 80, 3)] * 2
    assert envs.render().shape[2] == 3
    envs.set_options({"start": 1})
    with pytest.raises(ValueError, match="take no options"):
        envs.reset()


def test_an_agent_may_see_features_alone():
    envs = StableBaselinesEnv(telling(num_envs=2, horizon=2), greys)
    assert envs.observation_space["grey_level"].shape == (1,)
    assert envs.reset()["grey_level"].tolist() == [[0], [0]]
    up = np.array([[1, 0], [1, 0]], np.float32)
    assert envs.step(up)[0]["grey_level"] == pytest.approx(0.3, abs=1e-6)
    observation, _, dones, infos = envs.step(up)
    assert dones.all() and observation["grey_level"].tolist() == [[0], [0]]
    assert infos[1]["terminal_observation"]["grey_level"] == pytest.approx([0.6], abs=1e-6)


def test_raw_actions_are_warned_of():
    with pytest.warns(UserWarning, match="make the environment with normalise_actions=True"):
        StableBaselinesEnv(dream(normalise_actions=False))


def brightest(agent: object) -> float:
    """The first dim of the raw action that an agent takes at the start, -3..3."""
    policy = AgentPolicy(agent, features=greys, keys=plain_key, bounds=(np.full(2, -3.0), np.full(2, 3.0)))
    policy.reset([0])
    seen = {"observation.images.top": torch.full((1, 16, 16, 3), 90, dtype=torch.uint8)}
    return float(policy.act(seen)[0, 0])


@pytest.mark.slow
def test_ppo_learns():
    agent = stable_baselines3.PPO(
        "MultiInputPolicy",
        VecMonitor(StableBaselinesEnv(telling(num_envs=16, horizon=3), greys)),
        n_steps=16,
        batch_size=64,
        learning_rate=3e-3,
        gamma=0.9,
        seed=0,
        device="cpu",
    )
    before = brightest(agent)
    agent.learn(4000)
    assert brightest(agent) > before + 1
