"""The tab on which policies act in a world: the choice of policies, the leaderboard and the films."""

import html
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, no_type_check

import gradio as gr
import torch

from demos.driving.pictures import animation
from demos.driving.visitors import VisitorLeft, Visitors
from demos.page.live_ranking import BATCH, MAX_HORIZON, MAX_TRIALS, LiveRanking, make_envs, rank_live
from demos.page.progress import Steps
from policy_eval.policies.find import POLICY_FILE, is_steered, is_yours
from policy_eval.policies.find import find_policies as find_specs
from policy_eval.ranking.rank import Score
from policy_eval.scores import Scores
from policy_eval.steering.saved import read_steered
from worldmodel.data.clip import EpisodeSource
from worldmodel.dreams.copy_last import CopyLastWorld
from worldmodel.dreams.verdict import Judge
from worldmodel.files import read_object, shipped
from worldmodel.model.folder import find_optional
from worldmodel.world_model import WorldModel

DREAM = "the dream"
SIMULATOR = "the simulator itself"
NOTHING_HAPPENS = "control: the frame never changes"
Number = float | int | None
NOTE = """Policies act from the same starts in the world of your choice, and a judge
looks at the frames. With few trials the 95% intervals are wide; `worldmodel rank` makes more trials."""


@dataclass(frozen=True)
class RankingSetup:
    """What the trials of policies need.

    Attributes:
        world: The world model.
        judge: Judge of the dreams.
        task: Environment of the fresh starts and of the simulator; where there is none, the data set of the starts.
        policies: By name, what `load_policy` takes.
        worlds: Name -> folder of other world models in which they can act.
        real: Stored real trials, where there are any.
        visitors: The visitors who share the machine.
    """

    world: WorldModel
    judge: Judge
    task: str | EpisodeSource
    policies: dict[str, str | Path]
    worlds: dict[str, Path]
    real: dict[str, Score]
    visitors: Visitors

    @property
    def places(self) -> list[str]:
        """Where policies can act."""
        simulator = [SIMULATOR] if isinstance(self.task, str) else []
        return [DREAM, *self.worlds, *simulator, NOTHING_HAPPENS]

    @property
    def most_trials(self) -> int:
        """Largest number of trials of a policy."""
        return MAX_TRIALS if isinstance(self.task, str) else min(MAX_TRIALS, len(self.task))

    def world_of(self, name: str) -> WorldModel:
        """The world model behind a choice."""
        if name in self.worlds:
            return WorldModel.load(self.worlds[name], self.world.device)
        if name != NOTHING_HAPPENS:
            return self.world
        control = CopyLastWorld(self.world.config).to(self.world.device).eval()
        control.load_state_dict(self.world.state_dict())
        return control


def find_policies(specs: Sequence[str | Path], world: WorldModel) -> tuple[dict[str, str | Path], list[str]]:
    """The policies that `specs` name and whose cameras, size and action dims are those of the world model.

    Returns:
        The policies by name, and a line about each policy that does not fit.

    Raises:
        ValueError: A folder holds no policy, or two policies have the same name.
    """
    found, others = {}, []
    for name, spec in find_specs(specs).items():
        inside = read_steered(spec).policy if is_steered(spec) else spec
        file = None if is_yours(inside) else find_optional(inside, POLICY_FILE)
        config = read_object(file / POLICY_FILE).get("config", {}) if file is not None else {}
        pairs = {
            "views": (sorted(set(config.get("views", ())) - set(world.views)), []),
            "size": (list(config.get("size", world.size)), list(world.size)),
            "action_dim": (config.get("action_dim", world.action_dim), world.action_dim),
        }
        wrong = [f"{what} {got}, the world model {wanted}" for what, (got, wanted) in pairs.items() if got != wanted]
        if wrong:
            others.append(f"policy {spec}: it has {wrong[0]}")
        else:
            found[name] = spec
    return found, others


def find_worlds(folder: Path, world: WorldModel) -> dict[str, Path]:
    """The world models beside `folder` with the cameras, size and action dims of `world`, by name."""
    found = {}
    for file in sorted(folder.resolve().parent.glob("*/world.json")):
        config = read_object(file)["config"]
        same = tuple(config["views"]) == world.views and tuple(config["size"]) == world.size
        same = same and config["conditioner"]["action_dim"] == world.action_dim
        if same and file.parent != folder.resolve():
            found[file.parent.name] = file.parent
    return found


def stored_trials(specs: Sequence[str | Path], names: Collection[str]) -> dict[str, Score]:
    """Real success rates from `real.json` in the folders of policies, for those policies that have them."""
    stored: dict[str, object] = {}
    for file in (shipped(spec) / "real.json" for spec in specs):
        stored |= read_object(file) if file.is_file() else {}
    return {name: Score.of(Scores.from_json(stored[name]).outcomes) for name in names if name in stored}


def percent(score: Score) -> str:
    """A rate with its interval."""
    return f"{score.score:.0%} <small>{score.low:.0%}&ndash;{score.high:.0%}</small>"


def leaderboard(ranking: LiveRanking, real: Mapping[str, Score], place: str, fps: float) -> str:
    """Table and films; the place is where the policies acted."""
    rows = []
    for number, (name, score) in enumerate(ranking.scores.items(), start=1):
        stored = percent(real[name]) if name in real else "&ndash;"
        bar = f'<span class="bar" style="width:{100 * score.score:.0f}%"></span>'
        rows.append(
            f"<tr><td>{number}. {html.escape(name)}</td><td>{percent(score)}{bar}</td>"
            f"<td>{score.n}</td><td>{stored}</td></tr>"
        )
    if ranking.acting:
        rows.append(f'<tr><td colspan="4"><em>{html.escape(ranking.acting)} acts ...</em></td></tr>')
    head = "<th>policy</th><th>success here (95%)</th><th>trials</th><th>stored real trials</th>"
    films = []
    for name in (name for name in ranking.scores if name in ranking.films):
        trial = ranking.films[name]
        verdict = "success" if trial.outcome else "failure"
        label = f"{html.escape(name)}, first trial, {verdict} after {len(trial.actions)} steps"
        source = animation(torch.from_numpy(trial.frames), fps)
        films.append(
            f'<figure><img alt="{label}" src="{source}"><figcaption><span>{html.escape(name)}'
            f"</span><span>{verdict}, {len(trial.actions)} steps</span></figcaption></figure>"
        )
    state = "busy" if ranking.acting else "done"
    return (
        f'<div class="board" data-state="{state}"><p>Acting in: {html.escape(place)}</p>'
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        f'</table></div><div class="futures">{"".join(films)}</div></div>'
    )


def run_ranking(
    setup: RankingSetup,
    visitor: str,
    chosen: list[str],
    place: str,
    *,
    trials: int,
    horizon: int,
    num_steps: int,
    stepped: Callable[[], None] = lambda: None,
) -> Iterator[str]:
    """Rank the chosen policies for a visitor; yields the leaderboard as it grows.

    Raises:
        ValueError: A choice is none of those offered, or a number is out of range.
        VisitorLeft: The visitor has left; the trials end with the step under way.
    """

    def work(function: Callable[..., Any], *arguments: Any) -> Any:
        setup.visitors.check_here(visitor)
        return setup.visitors.work(function, *arguments)

    if place not in setup.places or not set(chosen) <= set(setup.policies):
        raise ValueError(f"choose among {list(setup.policies)} and {setup.places}")
    world = work(setup.world_of, place)
    envs = work(
        lambda: make_envs(
            world,
            setup.judge,
            setup.task,
            trials=trials,
            horizon=horizon,
            num_steps=num_steps,
            simulator=place == SIMULATOR,
        )
    )
    policies = {name: setup.policies[name] for name in setup.policies if name in chosen}
    try:
        for ranking in rank_live(policies, envs, horizon=horizon, work=work, stepped=stepped):
            yield leaderboard(ranking, setup.real, place, world.fps / world.stride)
    finally:
        setup.visitors.work(envs.close)


def policies_tab(setup: RankingSetup, visitor: gr.Textbox, *, num_steps: int) -> None:
    """Lay out the tab; `visitor` holds the visitor's name."""

    @no_type_check  # Gradio must see a generator, which a checker that wraps it would hide
    def run(
        chosen: list[str] | None,
        place: str | None,
        trials: Number,
        horizon: Number,
        who: str | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  # Gradio looks for it here
    ) -> Iterator[str]:
        """The leaderboard as it grows, with a bar of the steps."""
        total = len(chosen or []) * -(-int(trials or 1) // BATCH) * int(horizon or 1)
        steps = Steps(progress, total, "acting")
        try:
            yield from run_ranking(
                setup,
                who or "",
                chosen or [],
                place or "",
                trials=int(trials or 0),
                horizon=int(horizon or 0),
                num_steps=num_steps,
                stepped=steps.advance,
            )
        except VisitorLeft:
            return
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    gr.Markdown(NOTE)
    names = list(setup.policies)
    with gr.Row():
        chosen = gr.CheckboxGroup(names, value=names[:3], label="policies", elem_id="chosen")
        place = gr.Radio(setup.places, value=DREAM, label="world", elem_id="place")
    with gr.Row():
        trials = gr.Slider(
            1, setup.most_trials, min(8, setup.most_trials), step=1, label="trials of each", elem_id="trials"
        )
        horizon = gr.Slider(5, MAX_HORIZON, 60, step=5, label="steps of a trial", elem_id="horizon")
    start = gr.Button("Run the ranking", variant="primary", elem_id="rank")
    board = gr.HTML(elem_id="board", padding=False)
    start.click(run, [chosen, place, trials, horizon, visitor], board, concurrency_id="work", show_progress="full")
