"""`worldmodel info`: the facts of every format, and the problems it finds."""

import numpy as np
import pytest
from same_episodes import FPS, LENGTHS, pictures, tables, write_folder, write_hdf5, write_lerobot

from worldmodel.cli import main
from worldmodel.data import open_episodes
from worldmodel.data.info import describe
from worldmodel.data.problems import find_problems
from worldmodel.data.video.write import encode_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("info") / "data")


def test_facts_of_every_format(folder, tmp_path, capsys):
    hdf5 = write_hdf5(tmp_path / "data.hdf5", folder)
    lerobot = write_lerobot(tmp_path / "lerobot")
    codecs = {folder: "top h264, wrist h264", hdf5: "top gzip, wrist gzip"}
    codecs[lerobot] = codecs[folder]
    for place, codec in codecs.items():
        assert main(["info", str(place)]) == 0
        printed = capsys.readouterr().out
        assert f"folder    {place}" in printed
        assert "episodes  2 of 9 to 12 frames" in printed
        assert "frames    21 at 10 per second, 0.0 minutes" in printed
        assert "cameras   top 32 x 32, wrist 24 x 24 pixels, read at 32 x 32" in printed
        assert f"codecs    {codec}" in printed
        assert printed.count("actions") == 2 and printed.count("states") == 3
        lowest = min(table["actions"][:, 0].min() for table in map(tables, (0, 1)))
        assert f"{lowest:.4g}" in printed
        assert printed.count("problem ") == 1 and "cameras differ in size" in printed


def test_only_the_cameras_that_are_asked_for_are_described(tmp_path, capsys):
    folder = write_lerobot(tmp_path / "lerobot")
    for video in (folder / "videos").glob("*top/**/*.mp4"):
        video.write_bytes(b"no video")
    assert main(["info", str(folder)]) == 2
    assert "top" in capsys.readouterr().err
    assert main(["info", str(folder), "--views", "wrist"]) == 0
    printed = capsys.readouterr().out
    assert "cameras   wrist 24 x 24 pixels, read at 24 x 24" in printed and "none found" in printed


def test_malformed_data_is_one_line(folder, tmp_path, capsys):
    file = tmp_path / "data.hdf5"
    file.write_bytes(b"no")
    assert main(["info", str(file)]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"worldmodel info: {file}") and printed.err.count("\n") == 1


def test_unlabelled_video_is_said(tmp_path):
    (tmp_path / "episode_0").mkdir()
    encode_video(tmp_path / "episode_0/top.mp4", pictures(0)["top"], FPS)
    source = open_episodes(tmp_path)
    assert describe(source)["actions"] == "none: unlabelled video"
    assert find_problems(source) == []


def rewrite(folder, episode, view, frames):
    encode_video(folder / f"episode_{episode}/{view}.mp4", frames, FPS)


def same_size(folder):
    """Both cameras of one size, so that a healthy set has no problem."""
    write_folder(folder)
    for episode in range(2):
        rewrite(folder, episode, "wrist", pictures(episode)["top"])
    return folder


def test_a_healthy_set_has_no_problems(tmp_path):
    assert find_problems(open_episodes(same_size(tmp_path / "d"))) == []


def constant(folder):
    for episode in range(2):
        states = tables(episode)["states"]
        states[:, 1] = 0.5
        np.save(folder / f"episode_{episode}/states.npy", states)


def outlier(folder):
    states = [np.random.default_rng(e).normal(size=(400, 1)) for e in range(2)]
    states[1][7] = 1e6
    for episode, values in enumerate(states):
        rewrite(folder, episode, "top", np.tile(pictures(0)["top"], (34, 1, 1, 1))[:400])
        rewrite(folder, episode, "wrist", np.tile(pictures(0)["top"], (34, 1, 1, 1))[:400])
        np.save(folder / f"episode_{episode}/states.npy", values)
        for name in ("actions", "rewards", "successes"):
            (folder / f"episode_{episode}/{name}.npy").unlink()


def doubled(folder):
    for name in ("actions.npy", "states.npy"):
        content = np.load(folder / f"episode_0/{name}")[:9]
        for episode in range(2):
            np.save(folder / f"episode_{episode}/{name}", content)
    for name in ("rewards.npy", "successes.npy"):
        np.save(folder / f"episode_0/{name}", np.load(folder / f"episode_0/{name}")[:9])
    for view in ("top", "wrist"):
        rewrite(folder, 0, view, pictures(0)["top"][:9])


def damaged(folder):
    file = folder / "episode_1/top.mp4"
    content = bytearray(file.read_bytes())
    start = content.index(b"mdat") + 4
    content[start : start + 900] = bytes(900)
    file.write_bytes(content)


def black(folder):
    for episode in range(2):
        rewrite(folder, episode, "wrist", 0 * pictures(episode)["top"])


def frozen(folder):
    for episode in range(2):
        frames = pictures(episode)["top"]
        rewrite(folder, episode, "wrist", np.repeat(frames[:1], LENGTHS[episode], axis=0))


def short(folder):
    for view in ("top", "wrist"):
        rewrite(folder, 1, view, pictures(1)["top"][:5])
    for name, values in tables(1).items():
        np.save(folder / f"episode_1/{name}.npy", values[:5])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (constant, "states dim 1 is 0.5 in every frame"),
        (outlier, "states dim 0 is 1e+06 in frame 7 of episode 1"),
        (doubled, "episode 1 has the same actions and states as episode 0"),
        (damaged, "episode_1/top.mp4"),
        (black, "camera wrist is black"),
        (frozen, "camera wrist shows the same picture"),
        (short, "1 episodes are shorter than 9 frames, the first is 1 with 5"),
    ],
)
def test_problem_is_found(tmp_path, spoil, words):
    folder = same_size(tmp_path / "d")
    spoil(folder)
    (problem,) = find_problems(open_episodes(folder))
    assert words in problem
