"""What one unit of work costs on this machine: a frame decoded, a training step, a dreamed step, a simulated one.

All in seconds of CPU time, which other programs disturb less than the time on a clock.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from scale_queue import StepTime, fitted

from worldmodel.bench.decoding import decoding_speed, step_need
from worldmodel.bench.measure import noise_clip
from worldmodel.bench.timing import TimedStream, interleave
from worldmodel.data import open_episodes
from worldmodel.data.video.write import encode_video
from worldmodel.envs import make_env
from worldmodel.processes import single_thread
from worldmodel.world_model import WorldModel

SIDE = 256
SMALL_SET = Path(__file__).parents[1] / "tests" / "data" / "lerobot_v21_pusht"


def moving_pictures(frames: int, side: int = SIDE, seed: int = 0) -> np.ndarray:
    """A textured floor on which blocks move: `frames` RGB pictures of `side` by `side`."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 190, (side // 8, side // 8, 3))
    floor = np.kron(coarse, np.ones((8, 8, 1))).astype(np.uint8)
    pictures = np.repeat(floor[None], frames, 0)
    starts, speeds = rng.integers(0, side - 40, (6, 2)), rng.integers(-4, 5, (6, 2))
    for frame in range(frames):
        for colour, (start, speed) in enumerate(zip(starts, speeds, strict=True)):
            row, column = (start + frame * speed) % (side - 40)
            pictures[frame, row : row + 32, column : column + 32] = 40 * colour
    return pictures


def decoding_units(seconds: float) -> dict[str, float]:
    """Frames per second of one thread and bytes of a frame: our H.264 at 256 px, and a recorded set at 96 px."""
    with tempfile.TemporaryDirectory() as folder:
        for episode in range(2):
            (Path(folder) / f"episode_{episode}").mkdir()
            encode_video(Path(folder) / f"episode_{episode}" / "top.mp4", moving_pictures(200, seed=episode), 10)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.mp4"))
        large = decoding_speed(open_episodes(folder), workers=1, seconds=seconds, frames=10, clock=time.process_time)
    videos = sum(file.stat().st_size for file in SMALL_SET.rglob("*.mp4"))
    source = open_episodes(SMALL_SET)
    small = decoding_speed(source, workers=1, seconds=seconds, frames=10, clock=time.process_time)
    return {
        "frames_per_second_256": large.frames_per_second,
        "clip_frames_per_second_256": large.clip_frames_per_second,
        "drawn_bytes_256": size / 400,
        "frames_per_second_96": small.frames_per_second * len(source.views),
        "recorded_bytes_96": videos / sum(source.lengths) / len(source.views),
    }


def model_units(folder: Path | str, batches: tuple[int, ...], rounds: int) -> tuple[dict[str, float], StepTime]:
    """Seconds of a training step of 8 clips of 10 frames, and of dreamed steps with two denoising steps."""
    with single_thread():
        world = WorldModel.load(folder)
        source = open_episodes(SMALL_SET, tuple(world.size), world.views)
        streams = [TimedStream(world, noise_clip(world, batch, 8), 2, time.process_time) for batch in batches]
        interleave(streams, rounds=rounds, frames=4)
        need = step_need(world, source, name=str(folder), batch=8, frames=10, clock=time.process_time)
    seconds = [statistics.median(stream.timings.total) for stream in streams]
    measured = {f"dream_step_{batch}": value for batch, value in zip(batches, seconds, strict=True)}
    return {"training_step": need.seconds, "training_frames": need.frames, **measured}, fitted(list(batches), seconds)


def simulator_unit(name: str, steps: int) -> float:
    """Seconds of one step of a simulator with its pictures, under random actions."""
    env = make_env(name)
    env.reset(seed=0)
    env.action_space.seed(0)
    begin = time.process_time()
    for _ in range(steps):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
    spent = time.process_time() - begin
    env.close()
    return spent / steps
