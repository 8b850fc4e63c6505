"""A page on which you drive a world model with the arrow keys.

The browser asks for one frame, shows it, and asks for the next as long as a key is held, so the
dream runs as fast as the machine allows and stands still when nobody steers. Nothing is fetched
from elsewhere: no fonts, no scripts, no statistics.
"""

import base64
import html
import io
import os
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from demos.session import (
    DriveSession,
    context_from_data,
    context_from_environment,
    key_bindings,
)
from worldmodel.data import open_episodes
from worldmodel.data.clip import Clip
from worldmodel.fidelity import check_views
from worldmodel.world_model import WorldModel

ASSETS = Path(__file__).parent
NUM_STARTS = 8
FRESH_SEED = 1_000_000
"""First reset seed of fresh episodes; far from the seeds that recording starts at."""
INTRODUCTION = """# Drive a dream
Every frame below is drawn by the world model from the frames before it and your keys. Hold the
arrow keys, or the buttons."""
PAUSE_SECONDS = 0.5
"""A longer gap between two frames is a pause of the driver, not slowness of the model."""


@dataclass(frozen=True)
class DemoConfig:
    """Which world to drive, and where the page is served."""

    world: Path = Path("checkpoints/pusht")
    """Folder of the world model."""
    data: Path | None = None
    """Start from frames of this data set instead of fresh episodes of the environment."""
    environment: str = "pusht"
    """Embedded environment whose fresh episodes are the starts when no data set is given."""
    num_steps: int = 2
    """Denoising steps per frame to begin with."""
    port: int = 7860
    """The page is at http://127.0.0.1:PORT."""
    no_browser: bool = False
    """Do not open the page in the default browser."""


@dataclass
class Pace:
    """Frames per second over the last two dozen frames, pauses of the driver left out."""

    moments: deque = field(default_factory=lambda: deque(maxlen=24))

    def tick(self, now: float) -> float:
        """Note a frame shown at `now` seconds; returns frames per second, 0 before the second."""
        if self.moments and now - self.moments[-1] > PAUSE_SECONDS:
            self.moments.clear()
        self.moments.append(now)
        elapsed = now - self.moments[0]
        return (len(self.moments) - 1) / elapsed if elapsed else 0.0


def starts(config: DemoConfig, world: WorldModel) -> list[Clip]:
    """The contexts that a dream may start from."""
    if config.data is None:
        seeds = range(FRESH_SEED, FRESH_SEED + NUM_STARTS)
        name = config.environment
        return [context_from_environment(name, world, seed=seed) for seed in seeds]
    source = open_episodes(config.data, size=world.size)
    check_views(world, source)
    spread = sorted({round(i * (len(source) - 1) / (NUM_STARTS - 1)) for i in range(NUM_STARTS)})
    return [context_from_data(source, world, episode=episode) for episode in spread]


def picture(frame: UInt8[Tensor, "H W 3"]) -> str:
    """A frame as a PNG data URI."""
    buffer = io.BytesIO()
    Image.fromarray(frame.cpu().numpy()).save(buffer, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def screens(views: tuple[str, ...], frames: UInt8[Tensor, "v H W 3"]) -> str:
    """All cameras side by side; the style sheet enlarges them without smoothing."""
    figures = [
        f'<figure><img alt="camera {html.escape(view)}" src="{picture(frame)}">'
        f"<figcaption>{html.escape(view)}</figcaption></figure>"
        for view, frame in zip(views, frames, strict=True)
    ]
    return f'<div class="screens">{"".join(figures)}</div>'


def pad(session_keys: dict[str, tuple[int, int]]) -> str:
    """One button per key of the robot; the script reads the keys it knows from here."""
    signs = {"up": "&#9650;", "down": "&#9660;", "left": "&#9664;", "right": "&#9654;"}
    buttons = [
        f'<button class="key {key}" data-key="{key}" aria-label="{key}" '
        f'title="action dim {dim}, {"+" if sign > 0 else "-"}">{signs.get(key, key)}</button>'
        for key, (dim, sign) in session_keys.items()
    ]
    return f'<div class="pad">{"".join(buttons)}</div>'


def status(session: DriveSession, frames_per_second: float) -> str:
    """Step counter and speed, in one line."""
    rate = f"{frames_per_second:.0f} frames/s" if frames_per_second else "hold an arrow key"
    return f'<div class="status">step <b id="count">{session.num_frames}</b> &middot; {rate}</div>'


class Page:
    """What the page does, apart from how it looks; every visitor has a session of their own.

    Args:
        world: The world model.
        choices: The contexts that a dream may start from.
    """

    def __init__(self, world: WorldModel, choices: list[Clip]):
        self.world = world
        self.choices = choices

    def begin(
        self, num_steps: int, speed: float, index: int = 0
    ) -> tuple[DriveSession, Pace, str, str]:
        """A new session from start `index`."""
        context = self.choices[index]
        session = DriveSession(self.world, context, num_steps=num_steps, speed=speed)
        return session, Pace(), *self.view(session)

    def choose(
        self, num_steps: int, speed: float, event: gr.SelectData
    ) -> tuple[DriveSession, Pace, str, str]:
        """A new session from the start frame that was clicked."""
        return self.begin(num_steps, speed, event.index)

    def reset(self, session: DriveSession) -> tuple[str, str]:
        """Back to the start frame."""
        session.reset()
        return self.view(session)

    def advance(
        self, keys: str, session: DriveSession, pace: Pace, num_steps: int, speed: float
    ) -> tuple[str, str]:
        """One frame under the keys, given as words."""
        session.num_steps, session.speed = num_steps, speed
        session.step(keys.split())
        return self.view(session, pace.tick(time.perf_counter()))

    def view(self, session: DriveSession, frames_per_second: float = 0.0) -> tuple[str, str]:
        """The screens and the status line."""
        return screens(self.world.views, session.frames[-1]), status(session, frames_per_second)


def build_page(config: DemoConfig, world: WorldModel) -> gr.Blocks:
    """Lay out the page and connect it."""
    act = Page(world, starts(config, world))
    speed = DriveSession(world, act.choices[0]).speed
    with gr.Blocks(title="worldmodel", analytics_enabled=False) as page:
        session, pace = gr.State(), gr.State()
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=3):
                shown = [gr.HTML(elem_id="screen"), gr.HTML(elem_id="line")]
            with gr.Column(scale=1, min_width=220):
                gr.HTML(pad(key_bindings(world.action_dim)), elem_id="pad", js_on_load="")
                again = gr.Button("Reset", elem_id="reset")
                dials = [
                    gr.Radio(world.allowed_steps, value=config.num_steps, label="denoising steps"),
                    gr.Slider(0.1, 1.0, speed, step=0.1, label="speed"),
                ]
        gr.Markdown("Start from another frame:")
        gallery = gr.Gallery(
            [clip.frames[0, -1, 0].numpy() for clip in act.choices],
            show_label=False, columns=NUM_STARTS, height=150, allow_preview=False,
            object_fit="contain", elem_id="starts", buttons=[],
        )  # fmt: skip
        keys = gr.Textbox(visible="hidden")
        go = gr.Button("advance", elem_id="advance", visible="hidden")
        quick = {"show_progress": "hidden", "queue": False}
        ask = "(keys, ...rest) => [window.driving.keys(), ...rest]"
        shown_frame = go.click(act.advance, [keys, session, pace, *dials], shown, js=ask, **quick)
        shown_frame.then(None, js="() => window.driving.arrived()")
        again.click(act.reset, [session], shown, **quick)
        gallery.select(act.choose, dials, [session, pace, *shown], **quick)
        page.load(act.begin, dials, [session, pace, *shown], **quick)
    return page


def launch(page: gr.Blocks, *, port: int | None, browser: bool, block: bool) -> str:
    """Serve the page on this machine only; returns its address.

    Args:
        page: The page.
        port: Port, or `None` for any free one.
        browser: Open the default browser on it.
        block: Return only when interrupted.
    """
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    _, address, _ = page.launch(
        server_name="127.0.0.1", server_port=port, inbrowser=browser, prevent_thread_lock=True,
        quiet=True, share=False, ssr_mode=False, theme=theme, footer_links=[],
        css_paths=ASSETS / "app.css", head=f"<script>{(ASSETS / 'app.js').read_text()}</script>",
    )  # fmt: skip
    print(f"drive at {address}  (Ctrl-C ends it)", flush=True)
    if block:
        page.block_thread()
    return address


def demo(config: DemoConfig) -> None:
    """Load the world model and serve the page until interrupted."""
    torch.set_num_threads(1)  # two threads make single-frame inference erratic
    world = WorldModel.load(config.world).eval()
    launch(build_page(config, world), port=config.port, browser=not config.no_browser, block=True)
