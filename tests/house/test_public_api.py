"""What users import comes from the five package roots, at once, and is what it says."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys

import pytest
from places import ROOT

PACKAGES = ("conditioning", "worldmodel", "policy_eval", "rl_posttrain", "demos")
BLOCKS = {
    f"{file.relative_to(ROOT)}, block {number}": code
    for file in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("checkpoints/**/*.md")))
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", file.read_text(), re.DOTALL), 1)
}
SECONDS = 0.15


def python(code: str, *options: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, *options, "-c", code]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def for_editors(package: str) -> dict[str, str]:
    """Name -> module of the imports below `if TYPE_CHECKING`, which editors and type checkers read."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    return {alias.name: node.module for node in block.body for alias in node.names}


@pytest.mark.parametrize("package", PACKAGES)
def test_editors_see_what_is_imported(package):
    module = importlib.import_module(package)
    assert for_editors(package) == module._HOMES
    assert set(module.__all__) - {"__version__"} == set(module._HOMES)
    assert set(module.__all__) <= set(dir(module))
    assert (ROOT / package / "py.typed").is_file()


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_has_the_name_of_a_public_function(package):
    """Importing `package.name` would put the module in the place of the function."""
    module = importlib.import_module(package)
    assert {each.name for each in pkgutil.iter_modules(module.__path__)} & set(module.__all__) == set()


@pytest.mark.slow
def test_public_names_stay_what_they_are_when_everything_is_imported():
    code = f"""
import importlib, pkgutil
for package in {PACKAGES}:
    for each in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        try:
            importlib.import_module(each.name)
        except (ModuleNotFoundError, ValueError) as error:  # packages that not everybody has
            assert each.name.startswith(("worldmodel.envs.metaworld", "worldmodel.envs.libero")), (each.name, error)
for package in {PACKAGES}:
    module = importlib.import_module(package)
    for name, home in module._HOMES.items():
        found = getattr(module, name)
        assert found is getattr(importlib.import_module(home), name), (package, name, found)
        assert getattr(found, "__module__", home) in (home, "typing", "collections.abc"), (package, name, found)
print("same")
"""
    assert python(code).endswith("same\n")


def test_a_name_that_is_not_there_is_an_attribute_error():
    import worldmodel

    with pytest.raises(AttributeError, match="module 'worldmodel' has no attribute 'WorldModle'"):
        _ = worldmodel.WorldModle


def test_importing_a_root_imports_nothing_heavy():
    loaded = python(f"import sys, {', '.join(PACKAGES)}; print(*sys.modules)").split()
    heavy = {"torch", "gymnasium", "numpy", "gradio", "diffusers", "tyro"}
    assert heavy & set(loaded) == set()
    assert not [name for name in loaded if name.startswith(tuple(f"{package}." for package in PACKAGES))]


@pytest.mark.slow
def test_commands_start_without_what_only_metrics_plots_and_fsdp_need():
    commands = "worldmodel.training.pretrain policy_eval.ranking.command policy_eval.judge.train"
    commands += " rl_posttrain.posttraining.train rl_posttrain.imagination.train worldmodel.fidelity.measure"
    loaded = python(f"import sys, {', '.join(commands.split())}; print(*sys.modules)").split()
    late = {"torchmetrics", "torchvision", "lpips", "scipy", "diffusers", "matplotlib", "sympy", "triton"}
    assert late & set(loaded) == set()


def test_importing_a_root_is_instant():
    code = "import time; begin = time.process_time(); import worldmodel; print(time.process_time() - begin)"
    assert min(float(python(code)) for _ in range(5)) <= SECONDS


def test_importing_the_roots_warns_of_nothing():
    python("import worldmodel, policy_eval, rl_posttrain", "-W", "error")


@pytest.mark.parametrize("where", [where for where in BLOCKS if "format.md" not in where])
def test_documents_import_from_the_roots(where):
    """All but the page on formats, whose code is a module of `worldmodel.data`."""
    for node in ast.walk(ast.parse(BLOCKS[where])):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert not {name.split(".")[0] for name in names if "." in name} & set(PACKAGES)
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in PACKAGES:
            assert node.module in PACKAGES, f"{node.module} is no package root"
            assert {alias.name for alias in node.names} <= set(importlib.import_module(node.module).__all__)


def test_documents_have_examples():
    assert len(BLOCKS) >= 3
