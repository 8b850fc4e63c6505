import pytest
import torch
from drawn_episodes import DrawnEpisodes

from worldmodel.dreams.context import context_of
from worldmodel.fidelity.windows import (
    Window,
    evenly_spaced_windows,
    holding_actions,
    mirrored_actions,
    read_windows,
    shuffled_partners,
    trained_episodes,
)


def entry(**changes: object) -> dict:
    values = {"fingerprint": "other", "name": "data", "episodes": [], "reset_seeds": None, "robot_type": "drawn"}
    return values | changes


def test_trained_episodes_by_file_and_by_reset_seed() -> None:
    source = DrawnEpisodes([20, 20, 20], reset_seeds=[7, 8, 9])
    same_file = entry(fingerprint=source.fingerprint, episodes=[2, 0])
    assert trained_episodes([], source) == []
    assert trained_episodes([entry(episodes=[0, 1, 2])], source) == []
    assert trained_episodes([same_file], source) == [0, 2]
    assert trained_episodes([entry(reset_seeds=[8, 100]), same_file], source) == [0, 1, 2]
    other_robot = entry(reset_seeds=[8], robot_type="another")
    assert trained_episodes([other_robot], source) == []


def test_data_without_reset_seeds_is_not_matched_by_them() -> None:
    source = DrawnEpisodes([20, 20])
    assert trained_episodes([entry(reset_seeds=[None, 3])], source) == []


def test_windows_are_evenly_spaced_and_different() -> None:
    # 8 + 5 frames take 13: starts 0, 7/3, 14/3, 7 in 20 frames, only 0 in 13
    source = DrawnEpisodes([20, 13])
    windows = evenly_spaced_windows(source, starts=4, horizon=5, stride=1)
    assert windows == [Window(0, s) for s in (0, 2, 5, 7)] + [Window(1, 0)]
    # a stride of 2 takes 12 * 2 + 1 = 25
    long = DrawnEpisodes([27])
    windows = evenly_spaced_windows(long, starts=4, horizon=5, stride=2)
    assert [w.start for w in windows] == [0, 1, 2]


def test_a_short_episode_is_named() -> None:
    source = DrawnEpisodes([20, 12])
    with pytest.raises(ValueError, match=r"drawn: episode 1 has 12 frames.*take 13.*--horizon"):
        evenly_spaced_windows(source, starts=4, horizon=5, stride=1)


def test_read_windows_and_context() -> None:
    source = DrawnEpisodes([40, 40])
    windows = [Window(0, 3), Window(1, 0)]
    clip = read_windows(source, windows, horizon=2, stride=2)
    assert clip.frames.shape == (2, 10, 2, 16, 16, 3)
    assert clip.frames[0, :, 0, 0, 0, 0].tolist() == list(range(103, 123, 2))
    context = context_of(clip)
    assert context.frames.shape[1] == 8 and context.states.shape == (2, 8, 2)
    assert context.actions.shape == (2, 7, 4)
    # the last context frame is 17; the actions at 17 and 18 lead to the first dreamed frame
    torch.testing.assert_close(clip.actions[0, 7], torch.tensor([1.7, 1.7, 1.8, 1.8]))


def test_shuffled_partners_never_keep_their_own_episode() -> None:
    windows = [Window(e, s) for e in range(5) for s in range(4)] + [Window(5, 0)]
    for seed in range(5):
        partners = shuffled_partners(windows, seed=seed)
        pairs = {(w.episode, p.episode) for w, p in zip(windows, partners, strict=True)}
        assert all(one != other for one, other in pairs)
        assert {other for _, other in pairs} == set(range(6))
        assert len(pairs) == 6
    assert shuffled_partners(windows, seed=3) == shuffled_partners(windows, seed=3)
    assert shuffled_partners(windows[:4], seed=0) is None


def test_holding_and_mirrored_actions() -> None:
    # two actions of width 2 in a chunk; dim 1 is an absolute target of state dim 0
    actions = torch.tensor([[[1.0, 12.0, 2.0, 13.0]]])
    state = torch.tensor([[10.0, 99.0]])
    hold = holding_actions(actions, state, relative_to={1: 0}, stride=2)
    torch.testing.assert_close(hold, torch.tensor([[[0.0, 10.0, 0.0, 10.0]]]))
    mirrored = mirrored_actions(actions, hold)
    torch.testing.assert_close(mirrored, torch.tensor([[[-1.0, 8.0, -2.0, 7.0]]]))
    still = holding_actions(actions, None, relative_to={}, stride=1)
    torch.testing.assert_close(still, torch.zeros(1, 1, 4))
