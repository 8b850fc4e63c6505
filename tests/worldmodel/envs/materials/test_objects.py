import numpy as np
import pytest

from worldmodel.envs import find_objects, make_env, object_names, object_view
from worldmodel.envs.scripts import behave

TOP = "observation.images.top"


def seen(name: str, steps: int = 60) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Frames of play and the true positions in pixels."""
    env, frames, places = make_env(name), [], {"agent": [], "first end": [], "second end": [], "sand": []}
    env.reset(seed=2)
    for target, _ in zip(behave("play", env, np.random.default_rng(2)), range(steps), strict=False):
        frames.append(env.step(target)[0][TOP])
        places["agent"].append(env.agent_position / 8)
        if name == "pusht-rope":
            places["first end"].append(env.path[0] / 8)
            places["second end"].append(env.path[-1] / 8)
        else:
            places["sand"].append(env.pieces.mean(0) / 8)
    return np.stack(frames), {name: np.array(values) for name, values in places.items() if values}


@pytest.mark.parametrize("name", ["pusht-rope", "pusht-sand"])
def test_positions_in_rendered_frames(name):
    frames, places = seen(name)
    found = find_objects(name, frames)
    for thing, truth in places.items():
        error = np.linalg.norm(found[thing].position - truth, axis=-1)
        assert error.max() < 1 and error.mean() < 0.5, (thing, error.max(), error.mean())


def test_the_rope_is_one_object_beside_its_ends():
    env = make_env("pusht-rope")
    env.reset(seed=0)
    found = find_objects("pusht-rope", env.get_obs()[TOP])
    # 24 segments of 12 units, 16 wide with their edge, under two ends of radius 11; pixels of 8 units
    assert found["rope"].area == pytest.approx((24 * 12 * 16 - 2 * 11 * 16) / 64, rel=0.2)
    for end in ("first end", "second end"):
        assert found[end].area == pytest.approx(np.pi * 11**2 / 64, rel=0.4)


def test_nothing_else_is_taken_for_an_object():
    for name in ("pusht-rope", "pusht-sand"):
        env = make_env(name)
        env.reset(seed=0)
        env.scene.clear(np.array([60.0, 420.0]))
        env.scene.finger()
        found = find_objects(name, env.scene.top())
        assert {thing for thing, track in found.items() if track.area > 0} == {"agent"}


def test_names_and_views():
    assert object_names("pusht-rope") == ("agent", "rope", "first end", "second end")
    assert object_names("pusht-sand") == ("agent", "sand")
    assert object_view("pusht-rope") == object_view("pusht-sand") == "top"
