"""A minute of post-training for the quickstart: rewards on the world model's own rollouts."""

import json
from dataclasses import dataclass
from pathlib import Path

from rl_posttrain.posttraining.changes import Change
from rl_posttrain.posttraining.config import PosttrainConfig
from rl_posttrain.posttraining.train import posttrain
from worldmodel.files import read_object

MEASURES = {
    "psnr": "PSNR, dB (rewarded)",
    "error.agent": "agent error, px",
    "error.block": "block error, px",
    "state_error": "state error",
    "sharpness": "sharpness, of truth",
    "motion": "motion energy, of truth",
}


@dataclass(frozen=True)
class Posttraining:
    """What a minute of post-training did to dreams of the held-out episode.

    Attributes:
        first, last: Evaluations before and after.
        changes: What changed from window to window.
        curve: Rewards and guards over updates, a picture.
        video: Truth, before and after.
    """

    first: dict
    last: dict
    changes: list[Change]
    curve: Path
    video: Path

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """Measure, before and after, for a table."""
        return [
            (label, f"{self.first[name]:.2f}", f"{self.last[name]:.2f}")
            for name, label in MEASURES.items()
            if self.first.get(name) is not None and self.last.get(name) is not None
        ]


def posttrain_briefly(
    world: Path, data: Path, out: Path, *, minutes: float, updates: int, horizon: int, device: str
) -> Posttraining:
    """Post-train `world` on the episodes that it was trained on; the last one stays held out.

    Args:
        world: World model to start from.
        data: Its training data, of which it saw all episodes but the last.
        out: Folder of the better world model.
        minutes: Time after which it ends.
        updates: Maximum number of updates, if the minutes are not over before.
        horizon: Dreamed frames of a validation.
        device: Where it trains.

    Raises:
        ValueError: Data and world model do not fit.
    """
    posttrain(
        PosttrainConfig(
            world=world,
            data=data,
            out=out,
            minutes=minutes,
            steps=updates,
            groups=2,
            validation_episodes=1,
            validation_horizon=horizon,
            validation_starts=4,
            validation_interval=updates,
            patience=0,
            overwrite=True,
            device=device,
        )
    )
    rows = [json.loads(line) for line in (out / "evaluations.jsonl").read_text().splitlines()]
    changes = [Change.of_json(each) for each in read_object(out / "changes.json")["changes"]]
    return Posttraining(rows[0], rows[-1], changes, out / "curve.png", out / "videos" / "held_out_0.mp4")
