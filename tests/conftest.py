"""One thread, no display, no network, a private cache, Ctrl-C as in a terminal; and a stricter session under CI."""

import gc
import os
import random
import signal
import sys
from pathlib import Path

# Before torch, gradio, pygame or matplotlib is imported; subprocesses of the tests inherit it.
os.environ.update(
    OMP_NUM_THREADS="1",
    SDL_VIDEODRIVER="dummy",
    MPLBACKEND="Agg",
    GRADIO_ANALYTICS_ENABLED="False",
    HF_HUB_OFFLINE="1",
    PYGAME_HIDE_SUPPORT_PROMPT="1",
)

import pytest

# A shell lets what it starts in the background ignore Ctrl-C, which tests press.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Imports make millions of objects that stay: looking through them for garbage again and again takes a third of the
# time of collecting the tests.
gc.disable()

MISSING_GPU = "needs a CUDA device"
MISSING_LEROBOT = (
    "lerobot is not installed"  # it and gradio ask for different hub clients, so they are never both there
)
MISSING_LIBERO = "needs the Python package libero"  # its scenes take 1.2 GB, so it is not in the extra `all`
DATA = Path(__file__).parent / "data"
LONGEST = (
    "policy_eval/ranking/test_cluster.py",
    "house/test_extend.py",
    "demos/page/test_app.py",
    "docs/test_site_built.py",
    "demos/quickstart/test_quickstart.py",
    "benchmarks/test_invariants.py",
    "worldmodel/training/test_pretrain.py",
    "worldmodel/envs/test_record.py",
    "benchmarks/test_engine.py",
    "policy_eval/ranking/test_command.py",
    "rl_posttrain/posttraining/test_hacks.py",
    "house/test_pages.py",
    "demos/page/test_go_there.py",
    "worldmodel/training/test_pretrain_shared.py",
    "house/test_newcomer.py",
    "rl_posttrain/imagination/distil/test_planner.py",
    "demos/page/test_steering.py",
    "demos/quickstart/test_improvement.py",
    "benchmarks/test_posttrain.py",
    "benchmarks/test_interruptions.py",
    "worldmodel/processes/test_cluster.py",
    "house/test_packaging.py",
    "house/test_public_api.py",
    "worldmodel/envs/metaworld/test_env.py",
)
"""The files whose slow tests take the longest, 10 s and more each, the longest first."""


def pytest_collection_modifyitems(session, items):
    """The longest files begin first, so that no process is left alone with one of them at the end."""
    if session.config.option.markexpr == "slow":
        place = {str(Path(__file__).parent / name): index for index, name in enumerate(LONGEST)}
        items.sort(key=lambda item: place.get(str(item.path), len(place)))


def pytest_ignore_collect(collection_path, config):
    """A file without a slow test need not be imported for a run of the slow ones."""
    if config.option.markexpr == "slow" and collection_path.match("test_*.py"):
        return True if "mark.slow" not in collection_path.read_text() else None
    return None


def pytest_collection_finish():
    """What was imported is never looked through for garbage again."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Every test draws the same random numbers, alone or among others; so do the fixtures that are made for it."""
    random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip(MISSING_GPU)


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory):
    """Decoded frames go to a temporary folder, never to the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["WORLDMODEL_CACHE"] = str(folder)
    return folder


def forbidden_skips(config) -> list[str]:
    """The skipped tests of this session that lacked something other than a GPU, lerobot or LIBERO."""
    reports = config.pluginmanager.get_plugin("terminalreporter").stats.get("skipped", [])
    reasons = [(report.nodeid, str(report.longrepr)) for report in reports]
    allowed = (MISSING_GPU, MISSING_LEROBOT, MISSING_LIBERO)
    return [f"{name}: {reason}" for name, reason in reasons if not any(each in reason for each in allowed)]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    """Under CI a skip fails the session: a test nobody runs guards nothing."""
    is_controller = not hasattr(session.config, "workerinput")
    if is_controller and os.environ.get("CI") == "true" and forbidden_skips(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    if os.environ.get("CI") == "true":
        for line in forbidden_skips(config):
            terminalreporter.write_line(f"FAILED under CI because it was skipped: {line}", red=True)
