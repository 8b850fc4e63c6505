"""The tab of counterfactuals: many futures of the moment at which the drive stands."""

import html
from collections.abc import Callable, Mapping, Sequence

import gradio as gr

from demos.driving.counterfactuals import MAX_FUTURES, MAX_HORIZON, Futures, imagine_futures, proposals
from demos.driving.pictures import animation
from demos.driving.visitors import VisitorLeft, Visitors
from demos.page.pad import groups_of
from demos.page.progress import Steps
from worldmodel.dreams.verdict import Judge
from worldmodel.world_model import WorldModel

Number = float | int | None
NOTE = """What other actions would do from the current frame of your drive: every key held, rest, and
random moves. All futures share the same noise, so they differ only by their actions."""


def fan(futures: Futures, fps: float) -> str:
    """Every future as a small film with its score; the best one is marked."""
    figures = []
    for number, (name, frames) in enumerate(zip(futures.names, futures.frames, strict=True)):
        best = number == futures.best
        score = "" if futures.scores is None else f"{futures.scores[number]:.2f}"
        text = f"{'best: ' if best else ''}{score}"
        label = f"future {number + 1}: {name}{f', score {score}' if score else ''}"
        figures.append(
            f'<figure class="{"best" if best else ""}"><img alt="{html.escape(label)}" '
            f'src="{animation(frames, fps)}"><figcaption><span>{html.escape(name)}</span>'
            f"<b>{text}</b></figcaption></figure>"
        )
    return f'<div class="futures" data-count="{len(figures)}">{"".join(figures)}</div>'


def titles(bindings: Mapping[str, tuple[int, int]], names: Sequence[str]) -> dict[str, str]:
    """What to call a key that is held: by the key, or by the action if the keys drive several groups of actions."""
    if len(groups_of(names)) == 1 or len(set(names)) < len(names):
        return {}
    return {f"hold {key}": f"{names[dim]} {'+' if sign > 0 else '-'}" for key, (dim, sign) in bindings.items()}


def look_ahead(
    visitors: Visitors,
    visitor: str,
    judge: Judge | None,
    names: Sequence[str],
    *,
    k: int,
    horizon: int,
    seed: int,
    stepped: Callable[[], None] = lambda: None,
) -> str:
    """The futures of the current frame of a visitor's drive, as films side by side; `stepped` is called at each frame.

    Raises:
        ValueError: The visitor does not drive, or a number is out of range.
        VisitorLeft: The visitor has left; the dreams end with the frame under way.
    """
    session = visitors.session(visitor)
    pushes = proposals(session.bindings, k=k, horizon=horizon, speed=session.speed, seed=seed)
    named = titles(session.bindings, names)
    pushes = {named.get(name, name): push for name, push in pushes.items()}

    def dreamed(_: int) -> None:
        visitors.check_here(visitor)
        stepped()

    futures = imagine_futures(session, pushes, judge, dreamed)
    return fan(futures, session.world.fps / session.world.stride)


def futures_tab(visitors: Visitors, world: WorldModel, judge: Judge | None, names: Sequence[str], remark: str) -> None:
    """Lay out the tab; `names` are those of the actions, `remark` says what the scores mean or why there are none."""

    def run(
        k: Number,
        horizon: Number,
        seed: Number,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  # Gradio looks for it here
    ) -> str:
        """Dream the futures of the moment and show them; a mistake in a number is said on the page."""
        steps = Steps(progress, int(horizon or 1), "dreaming")
        numbers = {"k": int(k or 0), "horizon": int(horizon or 0), "seed": abs(int(seed or 0))}
        visitor = request.session_hash
        try:
            return visitors.work(lambda: look_ahead(visitors, visitor, judge, names, stepped=steps.advance, **numbers))
        except VisitorLeft:
            return ""
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    gr.Markdown(f"{NOTE} {remark}")
    with gr.Row():
        count = min(2 * world.action_dim + 5, MAX_FUTURES)
        k = gr.Slider(2, MAX_FUTURES, count, step=1, label="futures", elem_id="futures-k")
        horizon = gr.Slider(1, MAX_HORIZON, 15, step=1, label="frames", elem_id="futures-frames")
        seed = gr.Number(0, precision=0, minimum=0, label="seed of the random moves")
    look = gr.Button("Look ahead", variant="primary", elem_id="look")
    shown = gr.HTML(elem_id="fan", padding=False)
    look.click(run, [k, horizon, seed], shown, concurrency_id="work")
