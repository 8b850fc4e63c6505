"""A drive saved as files: an mp4 to look at and a LeRobot episode to train on."""

import shutil
from pathlib import Path

import torch
from einops import rearrange

from demos.driving.pictures import difference
from demos.driving.session import DriveSession
from worldmodel.data.lerobot.write import LeRobotSchema, finalise, stage_episode
from worldmodel.data.video.write import write_video
from worldmodel.dreams.film import side_by_side


def save_video(session: DriveSession, file: Path) -> None:
    """Write dream, truth and difference, as far as there are any, below each other.

    Raises:
        ValueError: Nothing was dreamed yet.
    """
    _check(session)
    kinds = {"dream": torch.stack([moment.frames for moment in session.moments])}
    if session.simulation is not None:
        kinds["truth"] = torch.stack([moment.truth for moment in session.moments])
        kinds["difference"] = difference(kinds["dream"], kinds["truth"])
    world = session.world
    write_video(file, side_by_side(kinds, world.views), world.fps / world.stride)


def save_episode(session: DriveSession, folder: Path, names: tuple[str, ...]) -> None:
    """Write the dream as a LeRobot v3.0 data set of one episode, every frame before its action.

    One row holds all actions of a stride: an episode of a world model with a stride has wider actions
    and fewer frames per second than its training data.

    Args:
        session: The drive; the last frame has no action yet and is left out.
        folder: The data set, which must not exist.
        names: Names of the action dims.

    Raises:
        ValueError: Nothing was dreamed yet.
    """
    _check(session)
    world = session.world
    repeated = [f"{name}_{k}" for k in range(world.stride) for name in names]
    schema = LeRobotSchema(
        fps=max(1, round(world.fps / world.stride)),
        views=dict.fromkeys(world.views, tuple(world.size)),
        action_names=names if world.stride == 1 else tuple(repeated),
        state_names=tuple(f"state_{i}" for i in range(world.state_dim)),
        robot_type=world.config.robot_type,
    )
    seen = session.moments[:-1]
    frames = rearrange([moment.frames for moment in seen], "t v H W c -> v t H W c").numpy()
    stage_episode(
        folder,
        0,
        schema=schema,
        frames=dict(zip(world.views, frames, strict=True)),
        actions=torch.stack([moment.actions for moment in session.moments[1:]]).numpy(),
        states=torch.stack([m.states for m in seen]).numpy() if world.state_dim else None,
        rewards=None,
        successes=None,
        task="Driven by hand in a dream.",
        metadata={"dreamed": 1, "noise_seed": session.seed},
    )
    finalise(folder, schema)


def save_recording(session: DriveSession, folder: Path, names: tuple[str, ...]) -> tuple[Path, Path]:
    """Write `dream.mp4` and `dream-lerobot.zip` into `folder`, in place of earlier ones.

    Raises:
        ValueError: Nothing was dreamed yet.
    """
    _check(session)
    shutil.rmtree(folder, ignore_errors=True)
    save_video(session, folder / "dream.mp4")
    save_episode(session, folder / "dream", names)
    archive = shutil.make_archive(str(folder / "dream-lerobot"), "zip", folder, "dream")
    shutil.rmtree(folder / "dream")
    return folder / "dream.mp4", Path(archive)


def _check(session: DriveSession) -> None:
    if len(session.moments) < 2:
        raise ValueError("nothing to save yet: steer first")
