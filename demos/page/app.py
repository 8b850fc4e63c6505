"""A page on which you can drive a world model, and look at possible futures and at its figures.

Nothing is fetched from elsewhere: no fonts, no scripts, no statistics.
"""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import torch
from starlette.middleware import Middleware

from demos.driving.start import Start, action_names, start_from_data, start_from_environment
from demos.driving.visitors import Visitors
from demos.page.connections import Connections, check_root_path, prefix_of
from demos.page.drive import FRESH_SEED, Drive, drive_tab
from demos.page.futures import futures_tab
from demos.page.goals import Goals, find_goal_judge
from demos.page.icon import OwnIcon
from demos.page.policies import RankingSetup, find_policies, find_worlds, policies_tab, stored_trials
from demos.page.quality import quality_tab
from demos.page.steering import steering_part
from policy_eval.judge.find import load_judge, load_trained, reward_range
from policy_eval.judge.judge import LearnedJudge
from worldmodel.data import EpisodeSource, open_episodes
from worldmodel.data.options import DataOptions, DataPath, ReadOptions
from worldmodel.display.ranges import Count, Port, check_ranges
from worldmodel.dreams.context import check_views
from worldmodel.dreams.verdict import Judge
from worldmodel.envs import has_simulator, lacks
from worldmodel.files import shipped
from worldmodel.model.folder import find_folder, find_optional
from worldmodel.model.precision import command_device
from worldmodel.world_model import WorldModel

ASSETS = Path(__file__).parent
NUM_STARTS = 8
SPEED = 0.7
STARTS = "checkpoints/starts"
"""Folder of recorded episodes that ship, one data set for each environment."""
QUEUE_LIMIT = 32
"""Requests that may wait for a long computation; more are turned away with a message."""
INTRODUCTION = """# Drive a dream
A world model draws every frame from the frames before it and your keys. You can hold the arrow keys, the keys that
are written on the buttons, or the buttons themselves."""


@dataclass(frozen=True)
class DemoConfig:
    """Which world to drive, and where the page is served."""

    world: str | Path = "checkpoints/pusht"
    """Folder of the world model, or hf://USER/NAME@REV."""
    data: DataPath | None = None
    """Data set to start from, in addition to fresh episodes of the environment."""
    judge: str | Path = "checkpoints/judges/pusht-position"
    """Judge of futures and trials: a folder (or hf://USER/NAME@REV), module:name, or the address of a server. The
    default is left out where it does not fit. With a judge of goals you can make any frame the goal and let the planner
    drive there."""
    policies: tuple[str | Path, ...] = (Path("checkpoints/policies/pusht-position"),)
    """Policies to rank: folders, folders of such folders, or module:name. The default ones are left out where they do
    not fit."""
    task: str = "pusht-position"
    """Environment in which trials of policies begin, and that the judge is for. A robot without a simulator needs none:
    its trials start from the episodes of --data."""
    posttrained: Path | None = None
    """Folder of the world model after post-training; by default WORLD-posttrained."""
    real: str = ""
    """Environment of the fresh episodes and of the simulator beside the dream, a name or module:Class; by default that
    of the training data."""
    num_steps: Count = 2
    """Denoising steps per frame at first; you can change them on the page."""
    host: str = "127.0.0.1"
    """Address of the network interface that the page is served on. By default only this machine can open the page;
    with 0.0.0.0 everybody can who reaches this machine by network, and there is no password."""
    port: Port = 7860
    """The page is at http://HOST:PORT."""
    root_path: str = ""
    """Path under which a reverse proxy shows the page, such as /demo, or the whole address, such as
    https://example.org/demo; the latter if the proxy does not send X-Forwarded-Host and X-Forwarded-Proto."""
    no_browser: bool = False
    """Do not open the page in the default browser."""
    visitors: Count = 16
    """Maximum number of visitors at a time."""
    reading: ReadOptions = field(default_factory=DataOptions)
    """Which episodes and columns of the data to read."""
    device: str = "auto"
    """Where the networks run: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""


def with_starts(config: DemoConfig, world: WorldModel) -> DemoConfig:
    """The config, with the recorded episodes that ship as its data where there is neither data nor a simulator."""
    name = config.real or world.config.robot_type
    recorded = shipped(f"{STARTS}/{name}")
    if config.data is not None or has_simulator(name) or not name.isidentifier() or not recorded.is_dir():
        return config
    return replace(config, data=recorded)


def find_starts(
    config: DemoConfig, world: WorldModel
) -> tuple[list[Start], Callable[[int], Start] | None, EpisodeSource | None]:
    """The starts to choose from, what makes fresh ones when there is a simulator, and the data set if there is one.

    Raises:
        ValueError: There is neither data nor an environment, or they do not fit the world model.
    """
    name = config.real or world.config.robot_type
    fresh = partial(_fresh, name, world) if has_simulator(name) else None
    if config.data is None:
        if fresh is None:
            lacking = lacks(name)
            raise ValueError(
                f"{config.world}: robot_type {name!r} is not an environment that can be made here"
                f"{f' (it {lacking})' if lacking else ''}, so starts come from a data set; pass --data"
            )
        return [fresh(FRESH_SEED + number) for number in range(NUM_STARTS)], fresh, None
    source = open_episodes(config.data, tuple(world.size), world.views, config.reading)
    check_views(world, source)
    spread = sorted({round(i * (len(source) - 1) / (NUM_STARTS - 1)) for i in range(NUM_STARTS)})
    return [start_from_data(source, world, episode=episode) for episode in spread], fresh, source


def _fresh(name: str, world: WorldModel, seed: int) -> Start:
    return start_from_environment(name, world, seed=seed)


def find_judge(config: DemoConfig, world: WorldModel) -> tuple[Judge | None, str]:
    """The judge, if there is one for the world model's pictures, and a remark about it.

    Raises:
        ValueError: The judge that the user names does not exist, or looks at other pictures.
    """
    views, size = tuple(world.views), tuple(world.size)
    if config.judge == DemoConfig.judge:
        if find_optional(config.judge, "judge.json") is None:
            return None, f"Without scores: there is no judge in {config.judge}."
        shape = load_trained(config.judge).shape
        if (tuple(shape.views), tuple(shape.size)) != (views, size):
            return None, f"Without scores: the judge in {config.judge} looks at other pictures."
    judge = load_judge(config.judge, world.device, views=views, size=size)
    low, high = reward_range(judge)
    task = f", as the judge of {config.task} sees it" if isinstance(judge, LearnedJudge) else f", from {config.judge}"
    return judge, f"Scores: the reward of the last frame, {low:.2f} to {high:.2f}{task}."


def find_task(config: DemoConfig, world: WorldModel, source: EpisodeSource | None) -> str | EpisodeSource:
    """Where the trials of policies start: fresh episodes of the task, or the data if this robot has no simulator."""
    has_one = source is None or has_simulator(config.real or world.config.robot_type)
    return config.task if has_one else source


def add_tabs(
    config: DemoConfig,
    drive: Drive,
    visitor: gr.Textbox,
    source: EpisodeSource | None,
    judge: Judge | None,
    remark: str,
) -> None:
    """Lay out the tabs beside the drive.

    Args:
        config: The options.
        drive: The tab of the drive.
        visitor: Holds the visitor's name.
        source: The data set, if there is one.
        judge: The judge, if there is one.
        remark: What the judge's scores mean, or why there are none.

    Raises:
        ValueError: A policy that the user names does not fit the world model.
    """
    world, visitors = drive.world, drive.visitors
    policies, others = find_policies(config.policies, world)
    if others and config.policies != DemoConfig.policies:
        raise ValueError(others[0])
    with gr.Tab("Counterfactuals"):
        futures_tab(visitors, world, judge, drive.names, remark)
    with gr.Tab("Policies"):
        if judge is None or not policies:
            gr.Markdown(
                "Nothing to rank: this needs a judge and policies for the pictures and the actions of this world "
                "model; name them by --judge and --policies."
            )
        else:
            worlds = find_worlds(find_folder(config.world), world)
            real = stored_trials(config.policies, policies)
            task = find_task(config, world, source)
            setup = RankingSetup(world, judge, task, policies, worlds, real, visitors)
            policies_tab(setup, visitor, num_steps=config.num_steps)
            steering_part(setup, visitor)
    with gr.Tab("Quality"):
        folder = find_folder(config.world)
        quality_tab(folder, config.posttrained or folder.with_name(f"{folder.name}-posttrained"))


def build_page(config: DemoConfig, world: WorldModel, out: Path) -> tuple[gr.Blocks, Visitors]:
    """Lay out the page and connect it; what visitors save goes to `out`."""
    os.environ["GRADIO_TEMP_DIR"] = str(out)
    visitors = Visitors(out, limit=config.visitors)
    config = with_starts(config, world)
    starts, fresh, source = visitors.work(find_starts, config, world)
    names = action_names(world, config.data, config.real or world.config.robot_type)
    judge, remark = find_judge(config, world)
    of_goals = find_goal_judge(judge, world)
    goals = None if of_goals is None else Goals(of_goals, visitors)
    drive = Drive(world, starts, visitors, names, fresh, goals)
    with gr.Blocks(title="worldmodel", analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION)
        visitor = gr.Textbox(visible="hidden", label="visitor")
        with gr.Tab("Drive"):
            dials = drive_tab(drive, num_steps=config.num_steps, speed=SPEED)
        add_tabs(config, drive, visitor, source, judge, remark)

        async def greet(request: gr.Request) -> str:
            try:
                await visitors.arrival(request.session_hash)
            except ValueError as error:
                raise gr.Error(str(error), print_exception=False) from error
            return request.session_hash

        greeted = page.load(greet, None, visitor, queue=False, show_progress="hidden")
        greeted.success(None, [visitor, *dials], None, js="(...values) => window.driving.begin(...values)")
        page.unload(lambda: None)  # Gradio's page holds a connection only if there is such a function
    page.queue(max_size=QUEUE_LIMIT, default_concurrency_limit=1, api_open=False)
    return page, visitors


def launch(
    page: gr.Blocks,
    visitors: Visitors,
    *,
    port: int | None,
    host: str = "127.0.0.1",
    root_path: str = "",
    browser: bool = False,
) -> str:
    """Serve the page in threads of this process until `page.close()`; returns its address.

    Args:
        page: The page.
        visitors: Its visitors; files are served only from their folder.
        port: Port, or `None` for any free one.
        host: Address of the network interface.
        root_path: Path or whole address under which a reverse proxy shows the page.
        browser: Open the default browser on it.

    Raises:
        ValueError: `root_path` is neither a path nor an address, or the page cannot be served at `host` and `port`.
    """
    check_root_path(root_path)
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]).set(
        body_text_color_subdued="*neutral_600",  # the defaults are too pale to read
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
    )
    layers = [Middleware(Connections, visitors=visitors, prefix=prefix_of(root_path)), Middleware(OwnIcon)]
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            root_path=root_path,
            app_kwargs={"middleware": layers},
            inbrowser=browser,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            theme=theme,
            footer_links=[],
            allowed_paths=[str(visitors.folder)],
            max_file_size=1,
            state_session_capacity=100,
            css_paths=ASSETS / "app.css",
            head=f"<script>{(ASSETS / 'app.js').read_text()}</script>",
        )
    except OSError as error:
        raise ValueError(
            f"--host {host} --port {port}: the page cannot be served there; is the port taken, or the address not one "
            "of this machine?"
        ) from error
    return address


def run_demo(config: DemoConfig) -> None:
    """Load the world model and serve the page until Ctrl-C or SIGTERM, which end it as any command.

    Raises:
        ValueError: An option does not fit; see `build_page` and `launch`.
    """
    check_ranges(config)
    check_root_path(config.root_path)
    torch.set_num_threads(1)  # with two threads the speed of single frames varies
    world = WorldModel.load(config.world, command_device(config.device))
    with tempfile.TemporaryDirectory(prefix="worldmodel-demo-", ignore_cleanup_errors=True) as out:
        page, visitors = build_page(config, world, Path(out))
        try:
            address = launch(
                page,
                visitors,
                port=config.port,
                host=config.host,
                root_path=config.root_path,
                browser=not config.no_browser,
            )
            print(f"drive at {address}  (Ctrl-C ends it)", flush=True)
            while page.is_running:
                time.sleep(0.5)
        finally:
            page.close(verbose=False)
            visitors.close()
