"""Rates of decoding against the time that a source takes, and what is said about training and decoding."""

import threading

import pytest
from drawn_episodes import DrawnEpisodes
from tiny import tiny_world

from worldmodel.bench import decoding
from worldmodel.bench.decoding import DecodingSpeed, StepNeed, decoding_speed, in_words, number, step_need
from worldmodel.bench.training import TrainingSpeed
from worldmodel.cli import main


class Timed(DrawnEpisodes):
    """Takes 4 ms for every frame, by a clock of its own in every thread."""

    spent = threading.local()

    def read(self, episode, start, stop, stride=1):
        self.spent.seconds = self.clock() + 0.004 * len(range(start, stop, stride))
        return super().read(episode, start, stop, stride)

    def clock(self) -> float:
        return getattr(self.spent, "seconds", 0.0)


@pytest.mark.parametrize("workers", [1, 3])
def test_rates_count_frames_of_all_workers(workers):
    source = Timed([5, 15])
    found = decoding_speed(source, workers=workers, seconds=0.15, frames=6, stride=2, clock=source.clock)
    assert found.frames_per_second == pytest.approx(workers * 250)
    assert found.episodes_per_second == pytest.approx(workers * 25)
    # a clip of 6 frames is read in two parts: the first and the second frame, then the second and those after it
    assert found.clip_frames_per_second == pytest.approx(workers * 250 * 6 / 7)


def test_the_time_of_reading_is_not_that_of_the_step(monkeypatch):
    world = tiny_world()
    source = DrawnEpisodes([12, 3], size=tuple(world.size), views=world.views)
    found = step_need(world, source, name="tiny", batch=2, frames=4)
    assert (found.name, found.device, found.frames) == ("tiny", "cpu", 8)
    monkeypatch.setattr(decoding, "training_speed", lambda *_, **__: TrainingSpeed(60.0, 0.25))
    need = step_need(world, source, name="tiny", batch=2, frames=4)
    assert need.seconds == pytest.approx(2 * 3 / 60 * 0.75) and need.frames_per_second == 8 / need.seconds


def speeds(*clips: float) -> list[DecodingSpeed]:
    return [DecodingSpeed(workers, 2 * rate, 0.2 * rate, rate) for workers, rate in enumerate(clips, 1)]


def test_training_waits_for_decoding():
    need = StepNeed("a world", "cuda", 80, 0.1)
    lines = in_words(need, speeds(200.0, 600.0, 400.0), frames=120_000, views=2, size=(50, 100))
    assert lines[0] == "a training step of a world on cuda takes 0.1 s for 80 frames: it needs 800 frames/s"
    assert lines[1].startswith("training waits for decoding") and lines[1].endswith("so 25% of the time is waiting")
    assert "2 threads can decode 600 frames/s" in lines[1]
    assert lines[2] == "the cache decodes all frames once: 100 s with 2 threads, 3.6 GB on the disk"


def test_decoding_waits_for_training():
    lines = in_words(StepNeed("w", "cpu", 80, 0.4), speeds(100.0, 300.0, 600.0), frames=1, views=1, size=(1, 1))
    assert lines[1].startswith("decoding waits for training: 2 threads can decode 1.5 times as many frames")


def test_numbers_have_no_exponent():
    assert [number(value) for value in (1823.4, 99.96, 0.01234, 12345678.0)] == ["1,823", "100", "0.0123", "12,345,678"]


def test_numbers_of_workers_are_positive(capsys):
    assert main(["info", "tests/data/lerobot_v21_pusht", "--speed", "--workers", "0"]) == 2
    assert "--workers is at least 1, got 0" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_says_who_waits(capsys):
    arguments = ["--look-at", "0", "--episodes", "2", "--workers", "1", "--seconds", "0.1", "--world"]
    assert main(["info", "tests/data/lerobot_v21_pusht", "--speed", *arguments, "checkpoints/pusht"]) == 0
    printed = capsys.readouterr().out
    assert "a training step of checkpoints/pusht on cpu takes" in printed
    assert "waits for" in printed and "the cache decodes all frames once" in printed
