"""A judge of goals as a self-contained page: words, scores against true rewards, frames judged near and far."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from policy_eval.judge.goals.judge import GoalJudge
from policy_eval.judge.goals.measure import NEAR, near_and_far, score_rewards
from worldmodel.data import EpisodeSource
from worldmodel.display.html import Report
from worldmodel.display.plots import panel, png
from worldmodel.display.words import span

SHOWN = 6
"""Frames in a row of pictures."""
LOOKED_AT = 40
"""Episodes whose frames are looked through for the nearest and the farthest ones."""


def meaning(report: Mapping[str, Any]) -> list[str]:
    """What the judge can be relied on for, in words.

    Args:
        report: The contents of `report.json`.
    """
    said = [
        f"Of two frames before a goal, the judge calls the later one nearer in {report['ordering']:.0%} of held-out "
        "cases (50% is chance). This needs no labels, and tells whether it learned anything."
    ]
    if report["spearman"] is not None:
        value, low, high = report["spearman"]
        baseline = report["pixels"][0]
        said.append(
            f"The rank correlation of its score with the true reward is {value:.2f} (95% interval "
            f"{span((low, high))}); the difference in pixels has {baseline:.2f}."
        )
    said.append(
        f"The goal counts as reached above a score of {report['threshold']:.2f}. There {report['missed']:.0%} of the "
        f"frames within {NEAR} steps of their goal are missed, and {report['accepted']:.0%} of those further away are "
        "accepted."
    )
    if report["success"] is not None:
        episodes = report["success"]["episodes"]
        said.append(
            f"It calls {episodes['called']:.0%} of the held-out episodes a success; in truth "
            f"{episodes['successes']:.0%} are. It is right about {episodes['accuracy']:.0%} of them."
        )
    return said


def write_page(
    report: Mapping[str, Any], judge: GoalJudge, source: EpisodeSource, episodes: Sequence[int], file: Path
) -> None:
    """Write the page.

    Args:
        report: The contents of `report.json`.
        judge: The judge.
        source: Held-out data.
        episodes: The episodes of it that the judge did not learn from.
        file: The page.
    """
    page = Report("A judge of goals")
    count = report["pictures"]
    page.text(f"{count} {'picture' if count == 1 else 'pictures'} of the goal; learned from {report['data']}.")
    page.meaning(meaning(report))
    page.heading("Scores")
    plots = {"Scores of held-out frames near their goal and further away": draw_pairs(judge, source, episodes)}
    scored = score_rewards(judge.score, source, episodes)
    if scored:
        rewards, scores = (np.concatenate([getattr(one, name) for one in scored]) for name in ("rewards", "scores"))
        plots["Score and true reward of held-out frames"] = draw_rewards(rewards, scores, judge.threshold)
    page.plots(plots)
    page.heading("Pictures")
    frames = torch.cat([source.read(e, 0, source.lengths[e]).frames for e in episodes[:LOOKED_AT]])
    order = judge.score(frames).cpu().argsort(descending=True)
    apart = max(len(order) // (20 * SHOWN), 1)  # neighbouring frames look alike
    goals = judge.goals[:SHOWN].cpu()
    page.plots(
        {
            "Pictures of the goal": draw_frames(goals),
            "Held-out frames judged nearest": draw_frames(frames[order[::apart][:SHOWN]]),
            "Held-out frames judged farthest": draw_frames(frames[order.flip(0)[::apart][:SHOWN]]),
        }
    )
    page.heading("Settings")
    numbers = {name: f"{report[name]:.3g}" for name in ("pictures", "farthest", "threshold", "loss")}
    page.facts(numbers | {name: report[name] for name in ("data", "test")})
    page.write(file)


def draw_pairs(judge: GoalJudge, source: EpisodeSource, episodes: Sequence[int]) -> bytes:
    """Histograms of the scores of near and far pairs, with the threshold, as a PNG."""
    pairs = near_and_far(judge, source, episodes, seed=1)
    figure, axes = panel()
    bins = np.linspace(0, 1, 26)
    axes.hist(pairs.far, bins=bins, alpha=0.6, label=f"more than {NEAR} steps before their goal")
    axes.hist(pairs.near, bins=bins, alpha=0.6, label=f"at most {NEAR} steps")
    axes.axvline(judge.threshold, color="0.3", ls="--", label="reached above")
    axes.set(xlabel="score", ylabel="frames")
    axes.legend(fontsize=8)
    return png(figure)


def draw_rewards(rewards: np.ndarray, scores: np.ndarray, threshold: float) -> bytes:
    """Scores over true rewards with the threshold, as a PNG."""
    figure, axes = panel()
    axes.plot(rewards, scores, ".", ms=2, alpha=0.3)
    axes.axhline(threshold, color="0.3", ls="--")
    axes.set(xlabel="true reward", ylabel="score", ylim=(0, 1))
    axes.grid(alpha=0.3)
    return png(figure)


def draw_frames(frames: UInt8[Tensor, "n v H W 3"]) -> bytes:
    """Frames side by side, cameras below each other, as a PNG."""
    figure, axes = panel(4.6, 4.6 * frames.shape[1] * frames.shape[2] / (SHOWN * frames.shape[3]) + 0.1)
    axes.imshow(rearrange(frames, "n v H W c -> (v H) (n W) c").numpy(), interpolation="nearest")
    axes.set_axis_off()
    return png(figure)
