"""Small and fast pictures of a MuJoCo model."""

import worldmodel.envs.mujoco.headless  # noqa: F401

# isort: split

import ctypes
import functools

import mujoco
import numpy as np
from jaxtyping import UInt8

MAX_GEOMS = 1000
MAX_SIZE = 480  # of MuJoCo's off-screen buffer, which is 640 x 480
PLAIN = (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_HAZE)
"""Effects that are left out: they take 90% of the time and are at most a pixel wide."""

Camera = mujoco.MjvCamera


def free_camera(*, azimuth: float, elevation: float, distance: float, lookat: tuple[float, float, float]) -> Camera:
    """A camera that stands still; angles in degrees, distance and point looked at in metres."""
    camera = Camera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.azimuth, camera.elevation, camera.distance = azimuth, elevation, distance
    camera.lookat[:] = lookat
    return camera


def fixed_camera(model: mujoco.MjModel, name: str) -> Camera:
    """A camera of the model, which moves with the body that it is fixed to."""
    camera = Camera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
    camera.fixedcamid = model.camera(name).id
    return camera


class Canvas:
    """The meshes and textures of one model in a GL context.

    Args:
        model: The model, or one with the same meshes and textures.
        size: Side of the square pictures in pixels.
    """

    def __init__(self, model: mujoco.MjModel, size: int):
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 0
        self.size = size
        self.gl = gl_context(size)
        self.gl.make_current()
        self.context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        self.viewport = mujoco.MjrRect(0, 0, size, size)

    def draw(self, scene: mujoco.MjvScene) -> UInt8[np.ndarray, "size size 3"]:
        """The picture of a scene."""
        self.gl.make_current()
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self.context)
        picture = np.empty((self.size, self.size, 3), np.uint8)
        mujoco.mjr_render(self.viewport, scene, self.context)
        mujoco.mjr_readPixels(picture, None, self.viewport, self.context)
        return np.ascontiguousarray(picture[::-1])

    def free(self) -> None:
        """Free meshes and textures; with another GL context current, those of another canvas would be freed."""
        self.gl.make_current()
        self.context.free()


@functools.cache
def gl_context(size: int) -> mujoco.GLContext:
    """The GL context of all pictures of a size; it is never freed, since OSMesa then draws black in the others."""
    context = mujoco.GLContext(size, size)
    # Python would free it when it ends, after OSMesa is gone, and complain that it cannot.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(context))
    return context


CANVASES: dict[tuple[str, int], Canvas] = {}


def canvas(task: str, model: mujoco.MjModel, size: int) -> Canvas:
    """The canvas of a task, made once; it is never freed."""
    if (task, size) not in CANVASES:
        CANVASES[task, size] = Canvas(model, size)
    return CANVASES[task, size]


def check_size(size: int) -> None:
    """Raise a `ValueError` if pictures cannot have a side of `size` pixels."""
    if not 16 <= size <= MAX_SIZE:
        raise ValueError(f"the cameras are 16 to {MAX_SIZE} pixels a side, got {size}")


class SceneRenderer:
    """Pictures of one simulation.

    Args:
        task: Name of the model, under which its canvas is shared and kept; `None` for a canvas of its own, which
            `close` frees.
        model: The simulation's model.
        size: Side of the square pictures in pixels, 16..480.

    Raises:
        ValueError: The size is out of range.
    """

    def __init__(self, task: str | None, model: mujoco.MjModel, size: int):
        check_size(size)
        self.task, self.model, self.size = task, model, size
        self.option = mujoco.MjvOption()
        self.scene = mujoco.MjvScene(model, MAX_GEOMS)
        for flag in PLAIN:
            self.scene.flags[flag] = 0

    @functools.cached_property
    def canvas(self) -> Canvas:
        """The canvas, made when the first picture is drawn."""
        return Canvas(self.model, self.size) if self.task is None else canvas(self.task, self.model, self.size)

    def picture(self, data: mujoco.MjData, camera: Camera) -> UInt8[np.ndarray, "size size 3"]:
        """The current state as seen by a camera; `mj_forward` must have been called."""
        mujoco.mjv_updateScene(self.model, data, self.option, None, camera, mujoco.mjtCatBit.mjCAT_ALL, self.scene)
        return self.canvas.draw(self.scene)

    def close(self) -> None:
        """Free the canvas, if it is not shared."""
        if self.task is None and "canvas" in vars(self):
            vars(self).pop("canvas").free()
