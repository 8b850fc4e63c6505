"""What a fidelity report means, in words."""

from collections.abc import Mapping
from typing import Any

from worldmodel.display.words import Interval, listed, order_of, sign_of, span
from worldmodel.fidelity.intervals import TOO_FEW
from worldmodel.fidelity.uncertainty.report import uncertainty_meaning


def meaning(report: Mapping[str, Any]) -> list[str]:
    """Whether dreams are better than copying the last frame, follow the actions, and agree between their cameras.

    With the scores of disagreement also whether it tells where dreams are wrong. A claim needs 95% intervals that do
    not overlap, or one that excludes 0; otherwise the sentence says that it cannot be told.

    Args:
        report: What `measure_fidelity` returns.
    """
    doubts = uncertainty_meaning(report["uncertainty"]) if "uncertainty" in report else []
    return [*_pictures(report), _actions(report), *_cameras(report), *doubts]


def _pictures(report: Mapping[str, Any]) -> list[str]:
    """One sentence for all cameras of the same verdict, at the longest horizon."""
    groups: dict[tuple[str, int | None], list[str]] = {}
    for view in report["cameras"]:
        if not _known(report["cameras"][view]["psnr"]):
            continue
        horizon, _, interval = _last(report["cameras"][view]["psnr"], report["intervals"]["cameras"][view]["psnr"])
        other = report["intervals"]["copy_last"][view]["psnr"].get(horizon)
        known = interval is not None and other is not None
        groups.setdefault((horizon, order_of(interval, other) if known else None), []).append(view)
    return [_picture(report, views, horizon, order) for (horizon, order), views in groups.items()]


def _picture(report: Mapping[str, Any], views: list[str], horizon: str, order: int | None) -> str:
    values = {
        name: listed([f"{report[name][view]['psnr'][horizon]:.1f} dB" for view in views])
        for name in ("cameras", "copy_last")
    }
    dreams = f"the dreams of {'camera' if len(views) == 1 else 'cameras'} {listed(views)}"
    figures = f"PSNR {values['cameras']}; the copy has {values['copy_last']}"
    ahead = f"{horizon} frames ahead" if horizon != "1" else "One frame ahead"
    if order is None:
        return (
            f"{ahead}, it cannot be told whether {dreams} are better than a copy of the last frame ({figures}): "
            f"{TOO_FEW}."
        )
    if order == 0:
        return (
            f"{ahead}, it cannot be told whether {dreams} are better than a copy of the last frame ({figures}): the "
            "95% intervals overlap."
        )
    verdict = "closer to the truth than" if order > 0 else "worse than"
    return f"{ahead}, {dreams} are {verdict} a copy of the last frame ({figures})."


def _actions(report: Mapping[str, Any]) -> str:
    """Whether altered actions make the dreams worse, at the longest horizon; the least gap decides."""
    followed = report.get("action_following", {})
    kinds = {kind: values for kind, values in followed.items() if _known(values["psnr_gap"])}
    if not kinds:
        return "It was not measured whether the dreams follow the actions."
    kind = min(kinds, key=lambda name: _last(kinds[name]["psnr_gap"], {})[1])
    horizon, gap, interval = _last(kinds[kind]["psnr_gap"], report["intervals"]["action_following"][kind]["psnr_gap"])
    other = f"{kind} actions" if kind != "hold" else "actions that hold still"
    frames = "One frame" if horizon == "1" else f"{horizon} frames"
    if interval is None:
        return (
            f"It cannot be told whether the dreams follow the actions: {frames.lower()} ahead, {other} cost "
            f"{gap:.1f} dB of PSNR, but {TOO_FEW}."
        )
    measured = f"{gap:.1f} dB of PSNR (95% interval {span(interval, '{:.1f}')} dB)"
    if sign_of(interval) == 0:
        return (
            f"It cannot be told whether the dreams follow the actions: {frames.lower()} ahead, {other} cost "
            f"{measured}, and the interval includes 0."
        )
    if sign_of(interval) < 0:
        return (
            f"The dreams do not follow the actions: {frames.lower()} ahead, {other} bring them closer to the "
            f"truth and cost {measured}."
        )
    others = f"{other} cost" if len(kinds) == 1 else "other actions cost at least"
    return f"The dreams follow the actions: {frames.lower()} ahead, {others} {measured}."


def _cameras(report: Mapping[str, Any]) -> list[str]:
    """Whether the cameras of a dream fit together better than those of two dreams, and as well as recorded ones."""
    if "cross_view" not in report:
        return []
    shares, intervals = (tree["cross_view"] for tree in (report, report["intervals"]))
    if not _known(shares["dream"]["share"]):
        return [
            "It was not measured whether the cameras tell one story: there are no windows of two episodes in which two "
            "cameras are there."
        ]
    horizon, dreamed, interval = _last(shares["dream"]["share"], intervals["dream"]["share"])
    recorded, ceiling = shares["recording"]["share"][horizon], intervals["recording"]["share"][horizon]
    ahead = "One frame ahead" if horizon == "1" else f"{horizon} frames ahead"
    noticed = f"{dreamed:.0%} of the swaps of a camera's rollout with another episode's are noticed"
    if interval is None or ceiling is None:
        return [f"It cannot be told whether the cameras tell one story: {ahead}, {noticed}, but {TOO_FEW}."]
    noticed += (
        f" (95% interval {span(interval, '{:.0%}')}); in the recordings it is {recorded:.0%}, by chance it would be 50%"
    )
    if interval[1] < 0.5:
        return [f"The cameras do not tell one story: {ahead}, {noticed}."]
    if interval[0] <= 0.5:
        return [f"It cannot be told whether the cameras tell one story: {ahead}, {noticed}."]
    worse = order_of(interval, ceiling) < 0
    verdict = "The cameras tell one story, but less well than recorded ones" if worse else "The cameras tell one story"
    return [f"{verdict}: {ahead}, {noticed}."]


def _last(
    values: Mapping[str, float | None], intervals: Mapping[str, Interval | None]
) -> tuple[str, float, Interval | None]:
    """The longest horizon that has a value, the value, and its interval."""
    horizon = _known(values)[-1]
    return horizon, values[horizon], intervals.get(horizon)


def _known(values: Mapping[str, float | None]) -> list[str]:
    """The horizons with a value."""
    return [horizon for horizon, value in values.items() if value is not None]
