"""The programs for users: the Gradio page and the quickstart.

Everything in `__all__` is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from demos.driving.session import DriveSession
    from demos.driving.start import start_from_data, start_from_environment
    from demos.page.app import DemoConfig, run_demo
    from demos.quickstart.stages import QuickstartConfig, run_quickstart

__all__ = [
    "DemoConfig",
    "DriveSession",
    "QuickstartConfig",
    "run_demo",
    "run_quickstart",
    "start_from_data",
    "start_from_environment",
]

_HOMES = {
    "DemoConfig": "demos.page.app",
    "DriveSession": "demos.driving.session",
    "QuickstartConfig": "demos.quickstart.stages",
    "run_demo": "demos.page.app",
    "run_quickstart": "demos.quickstart.stages",
    "start_from_data": "demos.driving.start",
    "start_from_environment": "demos.driving.start",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    """Public names, for editors and notebooks, whether they are imported yet or not."""
    return sorted({*globals(), *_HOMES})
