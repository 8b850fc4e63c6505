"""The part of the page on which a policy drives, with a switch that lets it choose among imagined futures."""

import html
from collections.abc import Callable, Iterator
from typing import no_type_check

import gradio as gr

from demos.driving.pictures import picture
from demos.driving.steering import MAX_FRAMES, MAX_PLANS, Driven, drive_by_policy, make_driver
from demos.driving.visitors import VisitorLeft
from demos.page.futures import fan
from demos.page.policies import RankingSetup
from demos.page.progress import Steps

Number = float | int | None
NOTE = """## Let one of them drive
A policy drives on from the current frame of your drive. If it is steered, it imagines several plans at each
decision, and carries out the one whose last frame the judge likes best: that future is marked. Your drive stays
where it is."""


def shown(driven: Driven, views: tuple[str, ...], fps: float, *, over: bool) -> str:
    """The current frame, what the judge says, and the futures of the last decision."""
    figures = [
        f'<figure><img alt="the policy drives, camera {view}" src="{picture(frame)}"><figcaption>{view}</figcaption>'
        "</figure>"
        for view, frame in zip(map(html.escape, views), driven.frames, strict=True)
    ]
    end = "solved" if driven.solved else "not solved" if over else "driving"
    said = f"<p>step <b>{driven.step}</b>, reward {driven.reward:.2f}, {end}</p>"
    futures = (
        "" if driven.futures is None else f"<p>What it imagined at its last decision:</p>{fan(driven.futures, fps)}"
    )
    state = "done" if over else "busy"
    return (
        f'<div class="steering" data-state="{state}" data-step="{driven.step}" data-solved="{driven.solved}">'
        f'<div class="cameras">{"".join(figures)}</div>{said}{futures}</div>'
    )


def run_policy(
    setup: RankingSetup,
    visitor: str,
    name: str,
    *,
    steered: bool,
    plans: int,
    frames: int,
    stepped: Callable[[], None] = lambda: None,
) -> Iterator[str]:
    """Let a policy drive from where a visitor's drive stands; yields what the page shows after each frame.

    Raises:
        ValueError: A choice is none of those offered, a number is out of range, or the visitor does not drive.
        VisitorLeft: The visitor has left; the drive ends with the frame under way.
    """
    visitors = setup.visitors
    if name not in setup.policies:
        raise ValueError(f"choose among {', '.join(setup.policies)}")
    session = visitors.work(visitors.session, visitor)
    number = plans if steered else 1
    policy = visitors.work(lambda: make_driver(session, setup.policies[name], setup.judge, plans=number))

    def here() -> None:
        visitors.check_here(visitor)
        stepped()

    world = session.world
    driving = drive_by_policy(session, policy, setup.judge, frames=frames, stepped=here)
    last = None
    while (driven := visitors.work(next, driving, None)) is not None:
        last = driven
        yield shown(driven, world.views, world.fps / world.stride, over=False)
    if last is not None:
        yield shown(last, world.views, world.fps / world.stride, over=True)


def steering_part(setup: RankingSetup, visitor: gr.Textbox) -> None:
    """Lay out the part, below the ranking; `visitor` holds the visitor's name."""

    @no_type_check  # Gradio must see a generator, which a checker that wraps it would hide
    def run(
        name: str | None,
        steered: bool,
        plans: Number,
        frames: Number,
        who: str | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  # Gradio looks for it here
    ) -> Iterator[str]:
        """The drive, frame by frame; a mistake is said on the page."""
        steps = Steps(progress, int(frames or 1), "driving")
        numbers = {"plans": int(plans or 0), "frames": int(frames or 0)}
        try:
            yield from run_policy(setup, who or "", name or "", steered=steered, stepped=steps.advance, **numbers)
        except VisitorLeft:
            return
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    gr.Markdown(NOTE)
    names = list(setup.policies)
    with gr.Row():
        name = gr.Dropdown(names, value=names[0], label="policy", elem_id="driver")
        steered = gr.Checkbox(True, label="steered", elem_id="steered")
    with gr.Row():
        plans = gr.Slider(2, MAX_PLANS, 4, step=1, label="plans to choose from", elem_id="plans")
        frames = gr.Slider(1, MAX_FRAMES, 30, step=1, label="frames", elem_id="steered-frames")
    start = gr.Button("Let the policy drive", variant="primary", elem_id="let-it-drive")
    place = gr.HTML(elem_id="policy-drive", padding=False)
    start.click(run, [name, steered, plans, frames, visitor], place, concurrency_id="work", show_progress="hidden")
