"""Import this before MuJoCo: it prepares drawing without a display.

Without a display MuJoCo must be set to draw in software. Triton crashes the process when it is
imported after OSMesa, because each contains its own LLVM; so it is imported here first.
"""

import ctypes.util
import importlib.util
import os
import sys

from worldmodel.resolve import absent, missing_extra


def check_installation(benchmark: str, *modules: str) -> None:
    """Raise a `ValueError` that says what to install when something is missing.

    Args:
        benchmark: The name of the environments, for the message.
        modules: The Python packages that they need.
    """
    if module := absent(*modules):
        raise ValueError(f"{benchmark} {missing_extra(module)}")
    if os.environ.get("MUJOCO_GL") == "osmesa" and not ctypes.util.find_library("OSMesa"):
        raise ValueError(
            "MUJOCO_GL is osmesa, but the library OSMesa is missing: apt-get install libosmesa6, "
            "or set MUJOCO_GL=egl on a machine with a GPU"
        )


if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    os.environ.setdefault("MUJOCO_GL", "osmesa")
if importlib.util.find_spec("triton"):
    importlib.import_module("triton._C.libtriton")
