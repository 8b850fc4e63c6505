"""How well dreams rank policies if some are left undecided: figures and tables of `benchmarks/abstention.py`."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from policy_eval.statistics.agreement import mmrv, pearson
from worldmodel.model.card import table

PLAIN = "all dreams"


@dataclass(frozen=True)
class Dreams:
    """All dreams in one world model; `p` policies from the same `n` starts.

    Attributes:
        seeds: Of the starts.
        outcomes: 1 for a success, by the judge's one threshold.
        steps: Steps up to the success or the end.
        judge: Outcomes by the judge's two thresholds; NaN where it is unsure.
        breaks: By limit, the step from which a dream is unsure; NaN where it is to be trusted.
    """

    seeds: Int64[np.ndarray, "n"]
    outcomes: Float64[np.ndarray, "p n"]
    steps: Float64[np.ndarray, "p n"]
    judge: Float64[np.ndarray, "p n"]
    breaks: Mapping[str, Float64[np.ndarray, "p n"]]

    def decided(self) -> dict[str, Float64[np.ndarray, "p n"]]:
        """Outcomes of every way to abstain; NaN where it leaves a dream undecided."""
        found = {PLAIN: self.outcomes, "judge": self.judge}
        for name, begins in self.breaks.items():
            trusted = np.isnan(begins) | ((self.outcomes == 1) & (self.steps < begins))
            found[name] = np.where(trusted, self.outcomes, np.nan)
        names = ("judge", "inverse-dynamics", "seeds")
        unsure = np.any([np.isnan(found[name]) for name in names], axis=0)
        return found | {"any of the three": np.where(unsure, np.nan, self.judge)}


def survival(
    outcomes: Float64[np.ndarray, "n"], steps: Float64[np.ndarray, "n"], begins: Float64[np.ndarray, "n"]
) -> float:
    """Kaplan-Meier estimate of the success rate; a dream counts up to the step before it becomes unsure."""
    last = np.where(np.isnan(begins), steps, np.minimum(steps, begins - 1))
    solved = (outcomes == 1) & (last == steps)
    failing = 1.0
    for step in np.unique(steps[solved]):
        failing *= 1 - (solved & (steps == step)).sum() / (last >= step).sum()
    return 1 - failing


def rates(dreams: Dreams, columns: Int64[np.ndarray, "k"]) -> dict[str, Float64[np.ndarray, "p"]]:
    """Success of every policy by every way to abstain, from the starts in `columns`; NaN where nothing is decided."""
    found = {}
    for name, values in dreams.decided().items():
        chosen = values[:, columns]
        number = (~np.isnan(chosen)).sum(1)
        found[name] = np.where(number > 0, np.nansum(chosen, 1) / np.maximum(number, 1), np.nan)
    for name in ("inverse-dynamics", "seeds"):
        triples = zip(dreams.outcomes, dreams.steps, dreams.breaks[name], strict=True)
        rows = [survival(*(each[columns] for each in triple)) for triple in triples]
        found[f"{name}, censored"] = np.array(rows)
    return found


def agreement(dreamed: Float64[np.ndarray, "p"], real: Float64[np.ndarray, "p"]) -> tuple[float, float]:
    """Pearson's r and MMRV over the policies with any decided dream; without three of them 0 and 1."""
    there = ~np.isnan(dreamed)
    if there.sum() < 3:
        return 0.0, 1.0
    pair = dreamed[None, there], real[None, there]
    return float(pearson(*pair)[0]), float(mmrv(*pair)[0])


def summary(
    dreams: Dreams, seeds: Int64[np.ndarray, "m"], real: Float64[np.ndarray, "p m"], *, resamples: int, seed: int = 0
) -> dict:
    """Agreement with reality of every way to abstain, and its difference to not abstaining.

    Args:
        dreams: The dreams.
        seeds: Starts of the real trials, those of the dreams first.
        real: Outcomes of the real trials.
        resamples: Bootstrap samples. Each draws policies, and starts, which dreams and real trials share.
        seed: Seed of the resampling.

    Returns:
        For every way: `r` and `mmrv`, each with `value`, `interval`, `change` and `change_interval` (95%); `coverage`,
        the share of decided dreams, over all and by policy; `bias`; and the `rates`.
    """
    number = len(dreams.seeds)
    assert (dreams.seeds == seeds[:number]).all()
    truth, everywhere = real.mean(1), np.arange(number)
    known = rates(dreams, everywhere)
    value = {name: agreement(each, truth) for name, each in known.items()}
    drawn: dict[str, list] = {name: [] for name in known}
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        policies = generator.integers(len(real), size=len(real))
        starts = generator.integers(len(seeds), size=len(seeds))
        mine = starts[starts < number]
        truly = real[:, starts].mean(1)[policies]
        for name, each in rates(dreams, mine).items():
            drawn[name].append(agreement(each[policies], truly))
    decided = dreams.decided()
    found: dict = {"n": number, "real": truth.tolist(), "ways": {}}
    for name in known:
        row: dict = {"rates": known[name].tolist(), "bias": float(np.nanmean(known[name] - truth))}
        for index, statistic in enumerate(("r", "mmrv")):
            samples = np.array(drawn[name])[:, index]
            change = samples - np.array(drawn[PLAIN])[:, index]
            row[statistic] = {
                "value": value[name][index],
                "interval": np.quantile(samples, (0.025, 0.975)).tolist(),
                "change": value[name][index] - value[PLAIN][index],
                "change_interval": np.quantile(change, (0.025, 0.975)).tolist(),
            }
        share = (~np.isnan(decided[name.split(",")[0]])).mean(1)
        row["coverage"] = {"all": float(share.mean()), "policies": share.tolist()}
        found["ways"][name] = row
    return found


def printed(worlds: Mapping[str, Mapping]) -> str:
    """A Markdown table of agreement; the success of every policy is left to the JSON."""
    lines = []
    for world, found in worlds.items():
        for name, row in found["ways"].items():
            cells = [world, name, f"{row['coverage']['all']:.0%}"]
            cells[-1] += f" ({min(row['coverage']['policies']):.0%} to {max(row['coverage']['policies']):.0%})"
            for statistic in ("r", "mmrv"):
                part = row[statistic]
                cells.append(f"{part['value']:.2f} {_between(part['interval'])}")
                cells.append("-" if name == PLAIN else f"{part['change']:+.2f} {_between(part['change_interval'])}")
            lines.append([*cells, f"{row['bias']:+.2f}"])
    heads = ["world model", "ranked by", "decided (of a policy)", "r", "change", "MMRV", "change", "bias"]
    return table(heads, lines)


def detection(known: Mapping[str, list[float]], *, resamples: int, seed: int = 0) -> dict:
    """How well each signal tells the dreams of recorded actions that end otherwise than the recordings from the others.

    Args:
        known: `real` and `dreamed` outcomes, and by signal the highest value of each dream.
        resamples: Bootstrap samples; each draws recordings.
        seed: Seed of the resampling.

    Returns:
        `n` recordings, the share `wrong` of their dreams, and for each signal the area under the ROC curve, `auroc`,
        with its `interval` (95%); `None` where all dreams are right, or all wrong.
    """
    wrong = np.array(known["real"]) != np.array(known["dreamed"])
    found: dict = {"n": len(wrong), "wrong": float(wrong.mean()), "signals": {}}
    generator = np.random.default_rng(seed)
    draws = generator.integers(len(wrong), size=(resamples, len(wrong)))
    for name in ("inverse-dynamics", "seeds"):
        values = np.array(known[name])
        areas = [auroc(values[rows], wrong[rows]) for rows in draws]
        areas = [area for area in areas if area is not None]
        ends = np.quantile(areas, (0.025, 0.975)).tolist() if areas else None
        found["signals"][name] = {"auroc": auroc(values, wrong), "interval": ends}
    return found


def auroc(values: Float64[np.ndarray, "n"], wrong: Bool[np.ndarray, "n"]) -> float | None:
    """Chance that a wrong one has the higher value than a right one, ties counted half; `None` without both."""
    if wrong.all() or not wrong.any():
        return None
    above = values[wrong][:, None] - values[~wrong][None]
    return float((above > 0).mean() + (above == 0).mean() / 2)


def printed_detection(worlds: Mapping[str, Mapping]) -> str:
    """A Markdown table with a row for each world model and signal."""
    lines = []
    for world, found in worlds.items():
        for name, row in found["detection"]["signals"].items():
            limit = found["known"]["about"][name]
            area = "-" if row["auroc"] is None else f"{row['auroc']:.2f} {_between(row['interval'])}"
            exceeded = "-" if limit["exceeded"] is None else f"{limit['exceeded']:.0%}"
            wrong = f"{found['detection']['wrong']:.0%} of {found['detection']['n']}"
            lines.append([world, wrong, name, area, f"{limit['value']:.3g}", exceeded])
    heads = ["world model", "dreams that end otherwise", "signal", "AUROC", "limit", "of those above the limit"]
    return table(heads, lines)


def _between(interval: list[float]) -> str:
    return f"[{interval[0]:.2f}, {interval[1]:.2f}]"
