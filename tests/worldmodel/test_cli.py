"""The command line, run as its users run it: in a process of its own."""

import errno
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import urllib.request
import warnings

import av
import fresh_python
import pytest
from places import LEROBOT_V30
from tiny import tiny_world

from worldmodel.cli import COMMANDS, how_to_go_on, main, said_of
from worldmodel.processes import Interrupted


def worldmodel(*arguments, **environment):
    """Run a command; returns the finished process with its text."""
    return fresh_python.worldmodel(*arguments, env={**os.environ, "COLUMNS": "100", **environment})


def python_path(folder) -> str:
    """`PYTHONPATH` with `folder` in front."""
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


def test_help_is_instant_and_lists_every_command():
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        finished = subprocess.run([sys.executable, "-m", "worldmodel.cli", "--help"], capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert finished.returncode == 0
    assert all(f"  {name} " in finished.stdout for name in COMMANDS)
    assert min(seconds) < 1.5  # processor time: waiting for other processes does not count


def test_help_imports_nothing_heavy():
    code = "import sys; from worldmodel.cli import main; main(['--help']); print(*sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not {"torch", "numpy", "gradio", "diffusers", "tyro"} & set(finished.stdout.split())


@pytest.mark.slow
def test_every_command_has_help():
    calls = [[*name.split(), "--help"] for name in [*COMMANDS, "pretrain tiny"]]
    code = f"from worldmodel.cli import main\nfor call in {calls}:\n    main(call)"
    tolerant = code.replace("main(call)", "try: main(call)\n    except SystemExit: pass")
    finished = fresh_python.python("-c", tolerant, env={**os.environ, "COLUMNS": "100"})
    assert finished.stderr == ""
    for call in calls:
        assert f"usage: worldmodel {' '.join(call[:-1])} " in finished.stdout


def test_an_unknown_command_is_one_line(capsys):
    assert main(["recrod"]) == 2
    assert capsys.readouterr().err == ("worldmodel: there is no command 'recrod'; did you mean 'record'?\n")
    assert main(["xyz"]) == 2
    assert "the commands are record, pretrain" in capsys.readouterr().err


@pytest.mark.slow
def test_a_mistake_is_one_line_unless_the_traceback_is_wanted(tmp_path):
    finished = worldmodel("info", tmp_path)
    assert finished.returncode == 2
    assert finished.stderr.startswith(f"worldmodel info: {tmp_path}")
    assert finished.stderr.count("\n") == 1
    with pytest.raises(ValueError, match=str(tmp_path)):
        main(["info", str(tmp_path), "--traceback"])


def test_a_file_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    assert main(["record", "pusht", "--out", str(out), "--episodes", "1", "--workers", "1"]) == 2
    assert capsys.readouterr().err == f"worldmodel record: {out}: Not a directory\n"
    with pytest.raises(NotADirectoryError):
        main(["record", "pusht", "--out", str(out), "--episodes", "1", "--workers", "1", "--traceback"])


def test_a_full_disk_is_one_line_but_a_broken_network_is_not():
    assert said_of(OSError(errno.ENOSPC, "No space left on device")) == "No space left on device"
    assert said_of(OSError(errno.EACCES, "Permission denied", "a/b")) == "a/b: Permission denied"
    assert said_of(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")) is None


def test_an_interrupted_command_says_how_to_go_on():
    words = ["tiny", "--data", "my data", "--overwrite", "--out", "run"]
    saved = Interrupted("stopped and saved after step 3 of 9")
    said = how_to_go_on("pretrain", words, saved)
    assert said == f"{saved}; go on with: worldmodel pretrain tiny --data 'my data' --out run --resume"
    assert how_to_go_on("pretrain", [*words, "--resume"], saved) == said
    assert how_to_go_on("pretrain", words, KeyboardInterrupt()) == "interrupted"
    kept = "interrupted; what is finished is kept, go on with: worldmodel record pusht --out d"
    assert how_to_go_on("record", ["pusht", "--out", "d"], KeyboardInterrupt()) == kept
    assert how_to_go_on("align", ["--out", "d"], saved).endswith("go on with: worldmodel align --out d")
    assert how_to_go_on("quickstart", [], saved) == "interrupted"


def test_an_interrupted_process_ends_with_130_wherever_it_was(tmp_path):
    """CPython remembers an interrupt in a string that it executes; `python -m` would then end itself by SIGINT."""
    (tmp_path / "yours.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Config: pass\n"
        "def go(config): exec('raise KeyboardInterrupt')\n"
    )
    (tmp_path / "start.py").write_text(
        "import sys\nfrom worldmodel import cli\ncli.COMMANDS['go'] = cli.Command('', 'yours', 'Config', 'go')\n"
        "sys.argv = ['worldmodel', 'go']\nsys.exit(cli.main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": python_path(tmp_path)}
    command = [sys.executable, "-m", "start"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (130, "worldmodel go: interrupted\n")


NETWORK = ("--dit.width", 32, "--dit.head-width", 16, "--dit.encoder-depth", 2, "--dit.decoder-depth", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A recorded data set and a world model of it, made by `record` and `pretrain`."""
    folder = tmp_path_factory.mktemp("cli")
    data, world = folder / "data", folder / "world"
    done = worldmodel("record", "pusht", "--episodes", 3, "--size", 32, "--out", data, "--workers", 1)
    assert done.returncode == 0, done.stderr
    done = worldmodel(
        "pretrain",
        "tiny",
        "--data",
        data,
        "--out",
        world,
        "--steps",
        2,
        "--batch",
        2,
        "--frames",
        3,
        "--validation-episodes",
        1,
        "--relative-to",
        0,
        0,
        1,
        1,
        *NETWORK,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_info(folder):
    done = worldmodel("info", folder / "data")
    assert done.returncode == 0, done.stderr
    assert "episodes  3 of 120 to 120 frames" in done.stdout
    assert "cameras   top 32 x 32, wrist 32 x 32 pixels" in done.stdout
    assert done.stdout.count("actions") == done.stdout.count("states") == 2


@pytest.mark.slow
def test_rollout(folder):
    video = folder / "new" / "dream.mp4"
    common = ("rollout", "--world", folder / "world", "--data", folder / "data", "--out", video)
    done = worldmodel(*common, "--episode", 1, "--start", 10, "--horizon", 4)
    assert done.returncode == 0, done.stderr
    with av.open(str(video)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 4
    assert frames[0].shape == (2 * (20 + 256), 2 * 256, 3)


@pytest.mark.slow
def test_fidelity(folder):
    report = folder / "fidelity.json"
    common = ("fidelity", "--world", folder / "world", "--data", folder / "data", "--out", report)
    options = ("--horizon", 1, "--starts", 1)
    done = worldmodel(*common, *options)
    assert done.returncode == 0, done.stderr
    assert "2 of 3 episodes were trained on and are left out" in done.stdout
    assert json.loads(report.read_text())["metadata"]["episodes"] == 1
    refused = worldmodel(*common, *options)
    assert refused.returncode == 2
    assert (
        refused.stderr == f"worldmodel fidelity: {report} exists already; pass --overwrite to replace it, or choose "
        "another --out\n"
    )
    done = worldmodel(*common, *options, "--include-train", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert json.loads(report.read_text())["metadata"]["episodes"] == 3
    assert set(json.loads(report.read_text())["cameras"]) == {"top", "wrist"}
    assert report.with_suffix(".png").exists()


@pytest.mark.slow
def test_demo(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "worldmodel.cli", "demo", "--world", str(folder / "world")]
    command += ["--data", str(folder / "data"), "--port", str(port), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("device: ")
        assert process.stdout.readline().startswith(f"drive at http://127.0.0.1:{port}")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as page:
            assert b"window.driving" in page.read()
        process.terminate()
        _, said = process.communicate(timeout=300)
    assert process.returncode == 130 and said == "worldmodel demo: interrupted\n"


@pytest.mark.slow
def test_what_is_odd_about_data_is_one_line(capsys, tmp_path):
    folder = with_stale_totals(tmp_path / "set")
    before = warnings.showwarning
    try:
        assert main(["rollout", "--world", str(tmp_path / "world"), "--data", str(folder), "--out", "x.mp4"]) == 2
        tiny_world(size=(96, 96)).save(tmp_path / "world")
        main(["rollout", "--world", str(tmp_path / "world"), "--data", str(folder), "--out", str(tmp_path / "x.mp4")])
    finally:
        warnings.showwarning = before
    lines = [line for line in capsys.readouterr().err.splitlines() if "total_frames" in line]
    assert len(lines) == 1 and lines[0].startswith(f"worldmodel: {folder}: ")
    assert main(["info", str(folder)]) == 0
    assert "\nnote      " in capsys.readouterr().out


def with_stale_totals(folder):
    shutil.copytree(LEROBOT_V30, folder)
    file = folder / "meta" / "info.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "total_frames": 7}))
    return folder
