"""Show a ranking: a table in the terminal and a self-contained page."""

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from policy_eval.abstention.page import sentences, show_abstention
from policy_eval.ranking.meaning import meaning
from policy_eval.ranking.outcomes import ENDINGS
from policy_eval.statistics.agreement import STATISTICS
from policy_eval.statistics.resampling import NORMAL
from worldmodel.display.html import Report
from worldmodel.display.plots import Row, draw_intervals, empty_figure
from worldmodel.files import write_atomically

WORDS = {
    "pearson": "Pearson r",
    "spearman": "Spearman rho",
    "kendall": "Kendall tau-b",
    "mmrv": "MMRV (SIMPLER's)",
    "mmrv_tie_safe": "MMRV (tie-safe)",
    "bias": "bias, dream minus real",
    "rmse": "RMSE",
    "calibration_slope": "calibration slope",
    "calibration_intercept": "calibration intercept",
    "top1_regret": "top-1 regret",
}
LOOKS = tuple(product("osD^vP", (f"C{number}" for number in range(10))))  # of the policies in a plot
LEADERBOARD = ("policy", "dream", "95% interval", "real", "95% interval", "real, with dreams")
AGREEMENT = ("statistic", "value", "95% interval", "standing", "ceiling p1", "p10", "median")


def print_ranking(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Print leaderboard and agreement."""
    console = Console() if console is None else console
    tables = [("policies, best dream first", LEADERBOARD, leaderboard(report))]
    if report["agreement"] is not None:
        tables.append(("agreement of dream and reality", AGREEMENT, agreement_rows(report)))
    for title, columns, rows in tables:
        table = Table(title=title)
        for column in columns:
            table.add_column(column)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for line in [*meaning(report), *remarks(report)]:
        console.print(line, markup=False, soft_wrap=True)


def write_report(report: Mapping[str, Any], videos: Sequence[tuple[Path, str]], file: Path) -> None:
    """Write the page.

    Args:
        report: The contents of `ranking.json`.
        videos: Files and captions of the worst disagreements, or of one dream.
        file: The page.
    """
    page = Report("Policies ranked in a dream")
    page.text(_introduction(report))
    page.meaning(meaning(report))
    page.heading("Leaderboard")
    page.table(LEADERBOARD, leaderboard(report))
    page.plots({"Success with 95% intervals, best dream first": draw_leaderboard(report)})
    with tempfile.TemporaryDirectory() as folder:
        agreement = report["agreement"]
        if agreement is not None:
            page.heading("Agreement of dream and reality")
            page.table(AGREEMENT, agreement_rows(report))
            page.text(
                "Standing: the share of perfect simulators with as many trials that do no "
                "better. The ceiling's percentiles are counted from the bad end."
            )
            draw_scatter(report, Path(folder) / "scatter.png")
            page.picture(
                Path(folder) / "scatter.png",
                "Dreamed against real score with 95% intervals; 95% of the policies of a perfect "
                "simulator with as many trials lie within the band.",
                wide=True,
            )
        for line in remarks(report):
            page.text(line)
        if len(report["policies"]) > 1:
            page.heading("Which of two policies is better")
            draw_pairs(report, Path(folder) / "pairs.png")
            page.picture(
                Path(folder) / "pairs.png",
                "Confidence, in percent, that the policy of the row is better than that of the "
                "column, from the starts that both share.",
                wide=True,
            )
    if report["abstention"] is not None:
        show_abstention(page, report["abstention"])
    if videos:
        page.heading("Films")
        page.text(
            "With real trials: the worst disagreements, reality above, the dream below. A trial that ends earlier "
            "holds its last frame."
        )
        for video, caption in videos:
            page.video(video, caption)
    page.heading("Settings")
    page.facts({k: v for k, v in report["settings"].items() if k != "policies"})
    page.write(file)


def leaderboard(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row per policy."""
    rows = []
    for policy in report["policies"]:
        real, predicted = policy["real"], policy["prediction_powered"]
        cells = [policy["name"], *_score(policy["dream"])]
        cells += ("-", "-") if real is None else _score(real)
        cells.append("-" if predicted is None else " ".join(_score(predicted)))
        rows.append(tuple(cells))
    return rows


def agreement_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row per statistic that is not refused."""
    agreement, rows = report["agreement"], []
    for name in STATISTICS:
        row = agreement[name]
        if row["value"] is None:
            continue
        ceiling = agreement["noise_ceiling"][name]
        rows.append(
            (
                WORDS[name],
                f"{row['value']:.3f}",
                f"{row['low']:.3f} to {row['high']:.3f}",
                f"{row['standing']:.1%}",
                *(f"{ceiling[k]:.3f}" for k in ("p1", "p10", "median")),
            )
        )
    return rows


def remarks(report: Mapping[str, Any]) -> list[str]:
    """Remarks that explain the figures: refusals, warnings, the limit of abstention, the optimism test."""
    lines = fault_lines(report)
    if report["abstention"] is not None:
        lines += sentences(report["abstention"])
    agreement, optimism = report["agreement"], report["optimism"]
    if agreement is not None:
        if agreement["refusal"] is not None:
            lines.append(f"No statement about correlations: {agreement['refusal']}")
        lines += agreement["warnings"]
    if optimism is not None:
        lines.append(
            f"Optimism test: of {optimism['n']} failed real trials, dreamed again action by "
            f"action, {optimism['score']:.1%} ({optimism['low']:.1%} to {optimism['high']:.1%}) "
            "end in imagined success."
        )
    return lines


def fault_lines(report: Mapping[str, Any]) -> list[str]:
    """A line for each policy that failed in some trials, and for each of which some are undecided."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for fault in report["faults"]:
        groups.setdefault((fault["policy"], fault["place"], fault["kind"]), []).append(fault["reason"])
    counted = "count as failures" if report["settings"]["faulty"] == "failure" else "are left out"
    lines = []
    for (policy, place, kind), reasons in groups.items():
        several = "s" if len(reasons) > 1 else ""
        trials = f"{len(reasons)} {'dreamed' if place == 'dream' else 'real'} trial{several} of {policy}"
        if kind == "policy":
            lines.append(f"In {trials} the policy failed, and they {counted}: {Counter(reasons).most_common(1)[0][0]}")
            continue
        unsure = len(groups.get((policy, place, "judge"), ())) + len(groups.get((policy, place, "dream"), ()))
        known = _range(report, policy, place, unsure)
        if kind == "judge":
            lines.append(f"At the end of {trials} the judge was unsure, and they are left out.{known}")
        else:
            lines.append(f"{trials} cannot be trusted to the end, and are left out.{known}")
    ranked = {policy["name"] for policy in report["policies"]}
    absent = [name for name in report["settings"]["policies"] if name not in ranked]
    lines += [f"{name} is not ranked: no trial of it is left." for name in absent]
    return lines


def _range(report: Mapping[str, Any], policy: str, place: str, unsure: int) -> str:
    """What the success rate would be if all unsure trials had failed, or succeeded, and how many were decided."""
    row = next((each[place] for each in report["policies"] if each["name"] == policy), None)
    if row is None:
        return ""
    trials, successes = row["n"] + unsure, row["score"] * row["n"]
    low, high = successes / trials, (successes + unsure) / trials
    return f" {row['n'] / trials:.0%} are decided; with the others its success is between {low:.2f} and {high:.2f}."


def draw_leaderboard(report: Mapping[str, Any]) -> bytes:
    """Dreamed and real scores with their intervals, as a PNG."""
    policies = report["policies"]
    places = [place for place in ("dream", "real") if policies[0][place] is not None]
    fields = ("score", "low", "high")
    rows = {p: [Row(each["name"], *(each[p][field] for field in fields)) for each in policies] for p in places}
    return draw_intervals(rows, "share of successful trials")


def draw_scatter(report: Mapping[str, Any], file: Path) -> None:
    """Dreamed against real scores over the band of a perfect simulator."""
    policies = report["policies"]
    figure = empty_figure(7.5, 5.5)
    axes = figure.subplots()
    trials = [[p[place]["n"] for p in policies] for place in ("dream", "real")]
    rates = np.linspace(0, 1, 201)
    spread = rates * (1 - rates) * sum(1 / np.mean(n) for n in trials)
    half = NORMAL.inv_cdf(0.975) * np.sqrt(spread)
    low, high = (rates - half).clip(0), (rates + half).clip(max=1)
    axes.fill_between(rates, low, high, color="0.88", label="perfect simulator")
    axes.plot([0, 1], [0, 1], color="0.6", lw=1)
    for policy, (marker, color) in zip(policies, cycle(LOOKS), strict=False):
        dream, real = policy["dream"], policy["real"]
        place, arms = (real["score"], dream["score"]), (_arms(dream), _arms(real))
        axes.errorbar(*place, *arms, fmt=marker, c=color, ms=5, lw=1, label=policy["name"])
    slope = report["agreement"]["calibration_slope"]["value"]
    if slope:
        intercept = report["agreement"]["calibration_intercept"]["value"]
        axes.plot(intercept + slope * rates, rates, "--", color="0.4", lw=1, label="calibration")
    axes.set(xlabel="real score", ylabel="dreamed score", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    figure.legend(fontsize=8, loc="outside right upper")
    write_atomically(file, lambda path: figure.savefig(path, format="png", dpi=110))


def draw_pairs(report: Mapping[str, Any], file: Path) -> None:
    """Heat maps of the confidence that the policy of the row is better, dream and reality."""
    names = [policy["name"] for policy in report["policies"]]
    index = {name: i for i, name in enumerate(names)}
    places = [p for p in ("dream", "real") if report["pairs"][0][p] is not None]
    side = max(3.0, 0.5 * len(names) + 1.5)
    figure = empty_figure(side * len(places), side)
    for number, place in enumerate(places):
        table = np.full((len(names), len(names)), np.nan)
        for pair in report["pairs"]:
            i, j = index[pair["first"]], index[pair["second"]]
            table[i, j] = pair[place]["probability"]
            table[j, i] = 1 - table[i, j]
        axes = figure.add_subplot(1, len(places), number + 1)
        axes.imshow(table, cmap="RdBu", vmin=0, vmax=1)
        for i, j in np.argwhere(~np.isnan(table)):
            ink = "white" if abs(table[i, j] - 0.5) > 0.35 else "black"
            text = f"{100 * table[i, j]:.0f}"
            axes.text(j, i, text, ha="center", va="center", fontsize=7, color=ink)
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.set_title({"dream": "in the dream", "real": "in real trials"}[place], fontsize=9)
    write_atomically(file, lambda path: figure.savefig(path, format="png", dpi=110))


def _introduction(report: Mapping[str, Any]) -> str:
    about, first = report["settings"], report["policies"][0]
    real = "" if first["real"] is None else f" and {first['real']['n']} real ones"
    file = Path(about["real"])
    real += f", read from the file {file.name}" if file.suffix in ENDINGS else ""
    return (
        f"{len(report['policies'])} policies, {first['dream']['n']} dreamed trials each{real}, at "
        f"most {about['horizon']} steps, in the world model {about['world']}"
        + (" replaced by its copy-last-frame control." if about["control"] != "none" else ".")
    )


def _score(row: Mapping[str, float]) -> tuple[str, str]:
    return f"{row['score']:.2f}", f"{row['low']:.2f} to {row['high']:.2f}"


def _arms(row: Mapping[str, float]) -> list[list[float]]:
    """Distances from the score to the ends of its interval, for matplotlib, which refuses any below 0.

    Stored rankings hold intervals that end beyond the score by a rounding error.
    """
    return [[max(row["score"] - row["low"], 0.0)], [max(row["high"] - row["score"], 0.0)]]
