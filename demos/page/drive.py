"""The tab on which a visitor steers: what the page sends and gets, and how it looks.

The script of the page sends one command at a time, as JSON, and shows the reply; so a dream runs as
fast as the machine allows while a key is held and stands still when nobody steers.
"""

import html
import json
import random
import time
from collections.abc import Callable, Sequence

import gradio as gr
from jaxtyping import UInt8
from torch import Tensor

from demos.driving.pictures import difference, picture
from demos.driving.recording import save_recording
from demos.driving.session import DriveSession, key_bindings
from demos.driving.start import Start
from demos.driving.visitors import Visitors
from demos.page.goals import BUTTONS, PLACE, Goals
from demos.page.hint import hint
from demos.page.pad import pad
from worldmodel.world_model import WorldModel

FRESH_SEED = 1_000_000
"""First reset seed of fresh episodes; far from the seeds that recording starts at."""
MAX_COMMAND = 2000
"""Maximum length of a command in characters."""
KINDS = {"dream": "dream", "truth": "simulator", "difference": "difference"}
ABOUT = {"dream": "drawn by the world model", "truth": "same keys", "difference": "black is none"}
"""What stands beside the names of the pictures."""


class Drive:
    """What the tab does, apart from how it looks.

    Args:
        world: The world model.
        starts: Where a dream may begin.
        visitors: The visitors who drive.
        names: Names of the action dims.
        fresh: Makes a start from a reset seed; `None` without a simulator.
        goals: The goals of the visitors; `None` without a judge of goals.
    """

    def __init__(
        self,
        world: WorldModel,
        starts: Sequence[Start],
        visitors: Visitors,
        names: tuple[str, ...],
        fresh: Callable[[int], Start] | None,
        goals: Goals | None = None,
    ):
        self.world, self.starts, self.visitors = world, starts, visitors
        self.names, self.fresh, self.goals = names, fresh, goals

    def command(self, text: str) -> dict:
        """Do what a visitor's page asks for; a mistake comes back as `{"error": message}`.

        Args:
            text: JSON with `visitor`, `do` (`start`, `fresh`, `again`, `step`, `undo`, `reset`,
                `save`, `goal` or `go`), the dials `num_steps`, `speed`, `seed` and `beside`, and `index` of a start
                or `keys` of a step.

        Returns:
            `step`, the number of dreamed frames, and `panels`: a data URI for every camera by kind.
            After `save` only `files`: an address by file name. After `goal` and `go` also what `Goals` returns.
        """
        try:
            return self.visitors.work(self._do, _parse(text))
        except ValueError as error:
            return {"error": str(error)}

    def _save(self, visitor: str) -> dict:
        """Addresses of the files of the visitor's drive, by name; a parameter avoids cached ones."""
        session = self.visitors.session(visitor)
        files = save_recording(session, self.visitors.files(visitor), self.names)
        now = time.monotonic_ns()
        return {"files": {file.name: f"gradio_api/file={file}?{now}" for file in files}}

    def _do(self, command: dict) -> dict:
        visitor, do = command["visitor"], command["do"]
        dials = {name: command[name] for name in ("num_steps", "speed", "seed")}
        if self.goals is not None and do != "go":
            self.goals.stop(visitor)
        if do in ("start", "fresh", "again"):
            start = self._start(do, command)

            def begin() -> DriveSession:
                return DriveSession(self.world, start, beside=command["beside"], **dials)

            return reply(self.visitors.enter(visitor, begin))
        session = self.visitors.session(visitor)
        session.set(**dials)
        if do == "step":
            session.step(command["keys"])
        elif do == "undo":
            session.undo()
        elif do == "reset":
            session.reset()
        elif do == "save":
            return self._save(visitor)
        elif do in ("goal", "go") and self.goals is not None:
            told = self.goals.set(visitor, session) if do == "goal" else self.goals.go(visitor, session)
            return reply(session) | told
        else:
            raise ValueError(f"there is no command {do!r}")
        return reply(session)

    def _start(self, do: str, command: dict) -> Start:
        if do == "again":
            return self.visitors.session(command["visitor"]).start
        if do == "fresh":
            if self.fresh is None:
                raise ValueError("there is no simulator that could begin anew")
            return self.fresh(FRESH_SEED + random.randrange(1000, 1_000_000))
        index = command["index"]
        if not 0 <= index < len(self.starts):
            raise ValueError(f"start is 0 to {len(self.starts) - 1}, got {index}")
        return self.starts[index]


def _parse(text: str) -> dict:
    """A command whose fields have the right types."""
    fields = {"visitor": str, "do": str, "num_steps": int, "speed": float, "seed": int, "beside": bool}
    try:
        command = json.loads(text) if len(text) <= MAX_COMMAND else None
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError("a command is JSON") from error
    if not isinstance(command, dict):
        raise ValueError(f"a command is a JSON object of at most {MAX_COMMAND} characters")
    command = {"index": 0, "keys": [], **command}
    for name, kind in {**fields, "index": int, "keys": list}.items():
        value = command.get(name)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = command[name] = float(value)
        if type(value) is not kind:
            raise ValueError(f"{name} is of type {kind.__name__}, got {value!r}")
    if not all(isinstance(key, str) for key in command["keys"]):
        raise ValueError(f"keys are words, got {command['keys']!r}")
    return command


def reply(session: DriveSession) -> dict:
    """What the page shows of a session."""
    now = session.now
    kinds = {"dream": now.frames}
    if now.truth is not None:
        kinds |= {"truth": now.truth, "difference": difference(now.frames, now.truth)}
    panels = {kind: [picture(frame) for frame in frames] for kind, frames in kinds.items()}
    return {"step": session.num_frames, "panels": panels}


def screens(views: Sequence[str], frames: UInt8[Tensor, "v H W 3"], names: Sequence[str]) -> str:
    """Places for every kind and camera; the dream shows `frames` before the first reply, and the hint above them."""
    height, width = frames.shape[1:3]
    groups = []
    for kind, title in KINDS.items():
        figures = []
        for view, frame in zip(views, frames, strict=True):
            name = html.escape(view)
            source = f'src="{picture(frame)}"' if kind == "dream" else ""
            figures.append(
                f'<figure><img alt="{title}, camera {name}" width="{width}" height="{height}" '
                f"{source}><figcaption>{name}</figcaption></figure>"
            )
        above = hint(names) if kind == "dream" else ""
        groups.append(
            f'<section class="kind {kind}" data-kind="{kind}"><h3>{title} <small>{ABOUT[kind]}</small></h3>'
            f'<div class="cameras">{"".join(figures)}{above}</div></section>'
        )
    return f'<div class="screens">{"".join(groups)}</div>'


def gallery(starts: Sequence[Start]) -> str:
    """The start frames as buttons, first camera only."""
    buttons = [
        f'<button type="button" data-start="{index}" aria-label="start frame {index + 1}">'
        f'<img alt="start frame {index + 1}" src="{picture(start.frames[0])}"></button>'
        for index, start in enumerate(starts)
    ]
    return f'<div class="starts" role="group" aria-label="start frames">{"".join(buttons)}</div>'


def layout(drive: Drive) -> str:
    """Everything that the script fills: screens, status, pad, buttons and starts."""
    bindings = key_bindings(drive.world.action_dim)
    actions = {"play": "Play", "undo": "Undo", "reset": "Reset", "save": "Save"}
    if drive.fresh is not None:
        actions["fresh"] = "New start"
    buttons = [f'<button type="button" class="act" data-do="{do}">{title}</button>' for do, title in actions.items()]
    if drive.goals is not None:
        buttons.append(BUTTONS)
    fps = drive.world.fps / drive.world.stride
    return (
        f'<div class="drive" data-fps="{fps:g}">'
        f"<div>{screens(drive.world.views, drive.starts[0].frames, drive.names)}"
        '<div class="status"><span>step <b id="count">0</b></span><span id="rate"></span>'
        '<span id="latency"></span></div><div id="message" role="alert"></div>'
        f'<div id="files" aria-live="polite"></div>{PLACE}</div>'
        f'<div class="hand">{pad(bindings, drive.names)}'
        f'<div class="acts">{"".join(buttons)}</div></div>'
        f'<div class="begin"><h3>Start from</h3>{gallery(drive.starts)}</div></div>'
    )


def drive_tab(drive: Drive, *, num_steps: int, speed: float) -> list[gr.components.Component]:
    """Lay out the tab; returns the dials, in the order of the script."""

    def command(text: str) -> dict:  # Gradio marks the function, which it cannot do to a method
        return drive.command(text)

    gr.HTML(
        layout(drive),
        elem_id="drive",
        padding=False,
        server_functions=[command],
        js_on_load="window.driving.connect(element, server.command)",
    )
    has_simulator = any(start.has_simulator for start in drive.starts)
    with gr.Row(elem_id="dials"):
        steps = gr.Radio(drive.world.allowed_steps, value=num_steps, label="denoising steps")
        pace = gr.Slider(0.1, 1.0, speed, step=0.1, label="speed")
        seed = gr.Number(0, precision=0, minimum=0, label="noise seed (reset takes it up)")
        beside = gr.Checkbox(has_simulator, label="simulator beside the dream", interactive=has_simulator)
    dials = [steps, pace, seed, beside]
    for dial in dials:
        dial.change(None, dials, None, js="(...values) => window.driving.turn(...values)")
    return dials
