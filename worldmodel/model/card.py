"""The card of a model: what it is, what it learned from, how good it is, and how to load it; in Markdown."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from worldmodel.files import is_on_hub, read_object

LOADERS = {
    "world.json": ("world model", "worldmodel", "WorldModel"),
    "policy.json": ("policy", "policy_eval", "ClonedPolicy"),
    "judge.json": ("judge of success", "policy_eval", "LearnedJudge"),
    "config.json": ("inverse dynamics", "policy_eval", "InverseDynamics"),
}
"""By the file that describes a model: its kind in words, and the class that loads it."""
TOLD = (
    "steps",
    "batch",
    "frames",
    "groups",
    "candidates",
    "updates",
    "streams",
    "learning_rate",
    "demonstrations",
    "seed",
)
"""Settings of a training run that a card tells."""
AGREEMENT = ("pearson", "spearman", "kendall", "mmrv_tie_safe", "bias", "rmse")
MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~&$!])")
ORDINALS = {2: "second", 3: "third"}
NO_CARD = "no card can be written from it"


@dataclass(frozen=True)
class CardFacts:
    """What the owner says about a model, for its card."""

    license: str = ""
    """Licence of the weights by the name that the hub gives it, such as apache-2.0 or cc-by-4.0; without one, nobody is
    allowed to use them."""
    data: str = ""
    """Where the training data is from and which licence it has, in words."""
    datasets: tuple[str, ...] = ()
    """Data sets on the hub that it learned from, as hf://USER/SET; those that a world model notes are known."""
    limits: str = ""
    """What the model cannot do, in words."""
    fidelity: tuple[Path, ...] = ()
    """Reports of `worldmodel fidelity`, one for each number of denoising steps; `fidelity.json` in the folder when not
    given."""
    ranking: Path | None = None
    """`ranking.json` of `worldmodel rank` with this world model or judge; the one in the folder when not given."""

    def reports(self, folder: Path) -> dict[str, list[dict[str, Any]]]:
        """The contents of the reports by the name of the file: those that are named, or else those in the folder."""
        named = {"fidelity.json": list(self.fidelity), "ranking.json": [self.ranking] if self.ranking else []}
        files = {name: paths or [folder / name] * (folder / name).is_file() for name, paths in named.items()}
        return {name: [read_object(path) for path in paths] for name, paths in files.items()}


def plain(text: object) -> str:
    """Text of a user as one line of Markdown that shows it as it is: no links, tables, code or HTML."""
    return MARKUP.sub(r"\\\1", " ".join(str(text).split()))


def code(text: object) -> str:
    """Text of a user as a piece of code in Markdown."""
    return f"`{' '.join(str(text).split()).replace('`', chr(39))}`"


def model_card(name: str, folder: Path, file: str, facts: CardFacts) -> str:
    """The text of a card, without metadata.

    Args:
        name: `USER/NAME` on the hub.
        folder: Folder of the model.
        file: The file in it that describes the model, one of `LOADERS`.
        facts: What the owner says.

    Raises:
        ValueError: A report is not of that kind.
    """
    described = read_object(folder / file)
    reports = facts.reports(folder)
    data = [*map(trained_on, described.get("train_data", [])), *learnt_from(folder), plain(facts.data)]
    parts = [
        f"# {plain(name.rpartition('/')[2])}",
        sentence(file, described),
        "\n".join(
            [
                f"- **Licence**: {plain(facts.license) if facts.license else 'none was given, so ask the owner'}",
                f"- **Data**: {' '.join(data).strip() or 'not described'}",
                f"- **Training**: {training(folder)}",
            ]
        ),
    ]
    if reports["fidelity.json"]:
        files = facts.fidelity or [folder / "fidelity.json"]
        parts += ["## Fidelity", told(fidelity_section, reports["fidelity.json"], files, "fidelity")]
    if reports["ranking.json"]:
        files = [facts.ranking or folder / "ranking.json"]
        parts += ["## Ranking", told(ranking_section, reports["ranking.json"][0], files, "ranking")]
    if file == "judge.json" and (folder / "report.json").is_file():
        report = read_object(folder / "report.json")
        parts += ["## Accuracy", told(judge_section, report, [folder / "report.json"], "judge")]
    kind, package, loader = loader_of(file, described)
    variable = kind.split()[0]
    example = f'from {package} import {loader}\n\n{variable} = {loader}.load("hf://{name}")'
    parts += ["## Use", f"With the package `worldmodel` installed:\n\n```python\n{example}\n```"]
    limits = "It knows only what was recorded: this robot, this scene, these cameras."
    parts += ["## Limits", f"{limits} {plain(facts.limits)}".strip()]
    return "\n\n".join(parts) + "\n"


def told(section: Callable[[Any], str], report: object, files: Sequence[Path], kind: str) -> str:
    """A section about a report.

    Raises:
        ValueError: The report lacks something.
    """
    try:
        return section(report)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        where = ", ".join(map(str, files))
        raise ValueError(f"{where}: this is not a {kind} report, {NO_CARD}: {type(error).__name__} {error}") from error


def loader_of(file: str, described: Mapping[str, Any]) -> tuple[str, str, str]:
    """Kind, package and class of a model; the description tells a judge of goals from one of success."""
    of_goals = file == "judge.json" and "goals" in described
    return ("judge of goals", "policy_eval", "GoalJudge") if of_goals else LOADERS[file]


def sentence(file: str, described: Mapping[str, Any]) -> str:
    """What a model sees and does, from its description."""
    kind = loader_of(file, described)[0]
    config = described.get("config") or described.get("shape") or {}
    views = " and ".join(code(view) for view in config.get("views", ()))
    height, width = config.get("size", ("?", "?"))
    sees = f"cameras {views} at {height} x {width} pixels"
    if file == "world.json":
        inner = config["conditioner"]
        stride = inner["stride"]
        shows = f", of which every {ORDINALS.get(stride, f'{stride}th')} is shown" if stride > 1 else ""
        robot = f" of {code(config['robot_type'])}" if config.get("robot_type") else ""
        return (
            f"World model{robot}: {sees}, {inner['action_dim']} action and {inner['state_dim']} state dimensions, "
            f"{config['fps']:g} frames/s{shows}. Given a few frames and actions, it dreams the frames that follow."
        )
    dims = f", {config['action_dim']} action dimensions" if "action_dim" in config else ""
    threshold = f", threshold {described['threshold']:.3f}" if "threshold" in described else ""
    return f"{kind[0].upper()}{kind[1:]}: {sees}{dims}{threshold}."


def trained_on(noted: Mapping[str, Any]) -> str:
    """One data set that a world model was trained on."""
    name = str(noted.get("name", "data set"))
    name = name if is_on_hub(name) else PureWindowsPath(name).name
    seeds = noted.get("reset_seeds")
    more = f", reset seeds {spans(seeds)}" if seeds else ""
    number = len(noted.get("episodes", []))
    return f"{number} episode{'s' * (number != 1)} of {code(name)}{more}."


def learnt_from(folder: Path) -> list[str]:
    """The data set that a policy or a judge learned from, as the report in its folder names it."""
    reports = [folder / name for name in ("training.json", "report.json") if (folder / name).is_file()]
    names = [read_object(report).get("data") for report in reports]
    return [f"Episodes of {code(PureWindowsPath(str(name)).name)}." for name in names if name]


def training(folder: Path) -> str:
    """How a model was trained, from what the run left in its folder; no paths."""
    values: dict[str, Any] = {}
    for file in ("state/settings.json", "training.json"):
        if (folder / file).is_file():
            values |= read_object(folder / file)
    said = [f"{name.replace('_', ' ')} {values[name]:g}" for name in TOLD if isinstance(values.get(name), int | float)]
    state = folder / "state" / "state.json"
    if state.is_file():
        progress = read_object(state)
        said.insert(0, f"{progress['step']} steps in {progress['seconds'] / 60:.0f} minutes")
    return ", ".join(said) + "." if said else "not noted."


def cells(values: Mapping[str, float | None], digits: int = 1) -> str:
    """Figures of all horizons in one cell."""
    shown = ("-" if value is None else f"{value:.{digits}f}" for value in values.values())
    return " / ".join(shown)


def spans(numbers: Sequence[int]) -> str:
    """Whole numbers as stretches of consecutive ones."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(f"{first}..{last}" for first, last in parts)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the cells are Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fidelity_section(reports: Sequence[Mapping[str, Any]]) -> str:
    """What was measured, and the table."""
    about = reports[0]["metadata"]
    horizons = " / ".join(map(str, about["horizons"]))
    return (
        f"{about['windows']} windows of {about['episodes']} held-out episodes, recorded actions; means, for the "
        f"horizons {horizons} (frames).\n\n{fidelity_table(reports)}"
    )


def fidelity_table(reports: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a row for each metric, a column for each number of steps and for copy-last."""
    steps = [report["metadata"]["num_steps"] for report in reports]
    columns = ["figure", *(f"{k} step{'s' * (k > 1)}" for k in steps), "copy last"]
    rows, first = [], reports[0]
    for view in first["cameras"]:
        for metric in ("psnr", "masked_psnr", "ssim"):
            digits = 3 if metric == "ssim" else 1
            row = [cells(report["cameras"][view][metric], digits) for report in reports]
            label = metric.replace("_", " ") + (", dB" if digits == 1 else "")
            rows.append([f"{plain(view)} {label}", *row, cells(first["copy_last"][view][metric], digits)])
    for name in first.get("objects", {}):
        for metric in ("error_px", "moving_error_px", "missing"):
            copied = first["copy_last"]["objects"][name].get(metric, {})
            digits = 2 if metric == "missing" else 1
            row = [cells(report["objects"][name][metric], digits) for report in reports]
            rows.append([f"{plain(name)} {metric.replace('_', ' ')}", *row, cells(copied, digits)])
    following = [report.get("action_following", {}) for report in reports]
    for kind in dict.fromkeys(kind for kinds in following for kind in kinds):
        gaps = [kinds.get(kind) for kinds in following]
        row = [cells(gap["psnr_gap"]) if gap else "-" for gap in gaps]
        rows.append([f"PSNR lost under {kind} actions, dB", *row, "-"])
    return table(columns, rows)


def ranking_section(report: Mapping[str, Any]) -> str:
    """The policies that were ranked in a world model, and how well dream and reality agree."""

    def score(row: Mapping[str, float] | None) -> str:
        return "-" if row is None else f"{row['score']:.2f} ({row['low']:.2f} to {row['high']:.2f}), {row['n']} trials"

    rows = [[plain(policy["name"]), score(policy["dream"]), score(policy["real"])] for policy in report["policies"]]
    text = table(["policy", "score in dreams, 95% interval", "real score, 95% interval"], rows)
    agreement = report["agreement"]
    if agreement is None:
        return f"{text}\n\nThere were no real trials, so it is not known how well the dreams agree with reality."
    found = [[name.replace("_", " "), agreement[name]] for name in AGREEMENT]
    shown = [
        [name, f"{row['value']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}"]
        for name, row in found
        if row["value"] is not None
    ]
    refused = f"\n\n{plain(agreement['refusal'])}" if agreement["refusal"] else ""
    return f"{text}\n\n{table(['agreement of dream and reality', 'value', '95% interval'], shown)}{refused}"


def judge_section(report: Mapping[str, Any]) -> str:
    """How well a judge tells success from failure, or near from far, on episodes that it was not trained on."""
    if "ordering" in report:
        rows = [["later frame of two called nearer to the goal", f"{report['ordering']:.3f}"]]
        if report["spearman"] is not None:
            rows.append(["rank correlation with the true reward", f"{report['spearman'][0]:.3f}"])
        return table(["held out", "value"], rows)
    rows = []
    for place in ("real", "dreamed"):
        for kind, row in report.get(place, {}).get("learned", {}).items():
            auc = "-" if row["auc"] is None else f"{row['auc']:.3f}"
            rows.append([f"{place} {kind}", str(row["n"]), auc, f"{row['accuracy']:.3f}"])
    return table(["held out", "number", "AUC", "accuracy"], rows)
