"""Interrupt commands at random moments, go on as they say, and compare the results with an uninterrupted run.

python benchmarks/interruptions.py               100 runs, about 15 CPU minutes
python benchmarks/interruptions.py --runs 15     each command with each signal once

pretrain, posttrain, imagine, record and rank run at tiny size, each in a process of its own. A run is interrupted one
to three times by SIGINT, SIGTERM or SIGKILL; after SIGINT and SIGTERM the command line that it prints goes on. Every
file must then be the same, bit for bit, and none may be left over. Not compared are logs (`log/`, `*.log`), times
(fields `seconds` and `minutes`) and, of the videos for people, the pictures: libx264 with several threads does not
repeat itself under load. The videos of a recorded data set (64 pixels, one thread) are compared.

Processes are forks of this one, which has imported PyTorch, because an import takes 4 CPU seconds; every tenth run
starts anew as `python -m worldmodel.cli`, so that moments of the start are among the random ones.
"""

import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # before NumPy and PyTorch are imported

import av
import numpy as np
import torch
import tyro

# What the commands import, so that forks find it imported.
import worldmodel.envs.record
import worldmodel.training.pretrain  # noqa: F401
from policy_eval.judge.judge import JudgeShape, LearnedJudge
from policy_eval.policies.cloned import ClonedPolicy, PolicyConfig
from worldmodel.cli import main as call
from worldmodel.model.card import table
from worldmodel.training.checkpoint import SETTINGS

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
COLD_INTERVAL = 10
"""One run in this many is a process that starts anew."""
STARTING = 0.1
"""Seconds in which a fork may not yet have come to its handlers of signals."""
IMPORTING = 4.0
"""Seconds that a new process takes to import everything."""
DEADLINE = 600.0
"""Seconds after which a command is killed."""
NOT_COMPARED = ("seconds", "minutes", "workers")
NETWORK = "--dit.width 32 --dit.head-width 16 --dit.patch 8 --dit.encoder-depth 2 --dit.decoder-depth 1 --dit.window 4"
INPUTS = (
    "record pusht-position --episodes 5 --size 64 --horizon 24 --behaviour play --workers 1 --seed 5 --out {in}/data",
    "pretrain tiny --data {in}/data --out {in}/world --steps 2 --batch 2 --frames 3 --validation-episodes 1 "
    f"--relative-to 0 0 1 1 {NETWORK}",
)
TRAINING = "--data {in}/data --out {out} --validation-episodes 1"
MODELS = "--world {in}/world --judge {in}/judge --data {in}/data --out {out} --num-steps 1"
COMMANDS = {
    "pretrain": f"pretrain tiny {TRAINING} --steps 60 --batch 2 --frames 4 --validation-interval 20 --save-interval 7 "
    f"--long-interval 3 --relative-to 0 0 1 1 {NETWORK}",
    "posttrain": f"posttrain --world {{in}}/world {TRAINING} --steps 8 --groups 2 --candidates 2 --context 2 "
    "--prefix 3 --branch 3 --validation-horizon 4 --validation-interval 3 --save-interval 2 --learning-rate 1e-4",
    "imagine": f"imagine {MODELS} --policy {{in}}/policies/policy-0 --updates 8 --streams 4 --horizon 3 --context 2 "
    "--validation-starts 2 --validation-horizon 3 --validation-interval 2 --save-interval 2 --learn.warmup 1 --pool 8 "
    "--patience 9",
    "record": "record pusht-position --episodes 24 --size 64 --horizon 24 --behaviour noisy --workers 1 --seed 6 "
    "--out {out}",
    "rank": f"rank {MODELS} --policies {{in}}/policies --horizon 8 --real pusht-position --episodes 5 --num-envs 1 "
    "--workers 1",
}
"""Each takes seconds, and saves often."""


@dataclass(frozen=True)
class InterruptionsConfig:
    """How often, and where."""

    runs: int = 100
    """Interrupted runs; commands and signals take turns."""
    seed: int = 0
    """Seed of the moments."""
    only: tuple[str, ...] = tuple(COMMANDS)
    """Commands."""
    workers_interval: int = 7
    """One run of record and rank in this many has two processes."""
    folder: Path | None = None
    """Where it works; a temporary folder, removed at the end, when not given."""


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        status: Exit status; minus the signal that killed it.
        said: What it printed.
        seconds: How long it ran.
        hit: Whether it was still running when the signal came.
    """

    status: int
    said: str
    seconds: float
    hit: bool


def start(arguments: Sequence[str], said: Path, *, cold: bool) -> int:
    """Start a command in a new process; returns its number."""
    with said.open("wb") as file:
        if cold:
            command = [sys.executable, "-m", "worldmodel.cli", *arguments]
            return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True).pid
        reading, writing = os.pipe()
        process = os.fork()
        if process:
            os.close(writing)
            os.read(reading, 1)  # it is about to begin
            os.close(reading)
            return process
        os.setsid()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        status = 1
        try:
            os.close(reading)
            os.close(writing)
            status = call(arguments)
        except KeyboardInterrupt:  # before the command could take it
            status = 130
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)


def run(arguments: Sequence[str], said: Path, kill: tuple[signal.Signals, float] | None = None, *, cold: bool) -> Ended:
    """Run a command to its end, or to a signal after some seconds."""
    process = start(arguments, said, cold=cold)
    began = time.monotonic()
    hit = False
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        gone = time.monotonic() - began
        if found:
            return Ended(os.waitstatus_to_exitcode(status), said.read_text(), gone, hit)
        if kill is not None and not hit and gone >= kill[1]:
            send(process, kill[0])
            hit = True
        if gone > DEADLINE:
            send(process, signal.SIGKILL)
        time.sleep(0.002)


def send(process: int, sent: signal.Signals) -> None:
    """Send a signal to a command and to its processes, as a terminal does; a fork is alone at first."""
    try:
        os.killpg(process, sent)
    except ProcessLookupError:
        os.kill(process, sent)


def filled(text: str, inputs: Path, out: Path) -> list[str]:
    """The words of a command."""
    return [word.replace("{in}", str(inputs)).replace("{out}", str(out)) for word in text.split()]


def make_inputs(folder: Path) -> None:
    """Data, a world model, a judge and two policies, all tiny."""
    for index, text in enumerate(INPUTS):
        ended = run(filled(text, folder, folder), folder / f"input-{index}.txt", cold=False)
        assert ended.status == 0, ended.said
    torch.manual_seed(1)
    LearnedJudge(JudgeShape(("top", "wrist"), (64, 64), width=8), threshold=0.5).save(folder / "judge")
    for index in range(2):
        torch.manual_seed(index)
        policy = ClonedPolicy(PolicyConfig(("top",), (64, 64), 2, 2, relative_to={0: 0, 1: 1}, width=8))
        policy.action_std.fill_(40.0)
        policy.save(folder / "policies" / f"policy-{index}", dtype=torch.float32)


def contents(out: Path) -> dict[str, object]:
    """What must be the same of every file, by its name."""
    files = sorted(file for file in out.rglob("*") if file.is_file())
    names = [str(file.relative_to(out)) for file in files]
    return {
        name: comparable(file, out)
        for name, file in zip(names, files, strict=True)
        if not name.startswith("log/") and file.suffix != ".log"
    }


def comparable(file: Path, out: Path) -> object:
    """A file without times, number of processes, name of its folder, and without the pictures of videos for people."""
    if file.suffix in (".json", ".jsonl"):
        text = file.read_text().replace(str(out), "OUT")
        return [without_times(json.loads(part)) for part in (text.splitlines() if file.suffix == ".jsonl" else [text])]
    if file.suffix == ".html":
        text = re.sub('data:video/mp4;base64,[^"]*', "video", file.read_text().replace(str(out), "OUT"))
        return re.sub(r"<td>workers</td><td>\d+</td>", "", text)
    if file.suffix == ".mp4" and file.parent.name in ("videos", "validation"):
        with av.open(str(file)) as container:
            return [(frame.width, frame.height) for frame in container.decode(video=0)]
    return file.read_bytes()


def without_times(value: object) -> object:
    """JSON without times and the number of processes."""
    if isinstance(value, dict):
        return {key: without_times(each) for key, each in value.items() if key not in NOT_COMPARED}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def next_call(arguments: list[str], ended: Ended, out: Path) -> list[str]:
    """The command that goes on: what the command said, or, where it could say nothing, what a user would type."""
    told = re.search("go on with: worldmodel (.*)", ended.said)
    if told:
        return shlex.split(told[1])
    begun = (out / SETTINGS).is_file() and "--resume" not in arguments
    return [*arguments, "--resume"] if begun else arguments


def interrupted_run(
    arguments: list[str], out: Path, sent: signal.Signals, seconds: float, rng: np.random.Generator, *, cold: bool
) -> tuple[int, str]:
    """Interrupt a command up to three times and let it end; returns how often, and what was wrong."""
    hits, said, current = 0, out.with_suffix(".txt"), arguments
    for _ in range(int(rng.integers(1, 4))):
        ended = run(current, said, (sent, float(rng.uniform(0, seconds))), cold=cold)
        wrong = fault(ended, sent, cold=cold)
        if wrong:
            return hits, wrong
        hits += ended.hit
        current = next_call(current, ended, out)
    ended = run(current, said, cold=cold)
    return hits, "" if ended.status == 0 else f"status {ended.status} at the end: {last_line(ended)}"


def fault(ended: Ended, sent: signal.Signals, *, cold: bool) -> str:
    """What is wrong with the end of an interrupted process; while it starts, it is not ready for a signal."""
    starting = cold or ended.seconds < STARTING
    allowed = {0, 130, -sent} if starting or sent == signal.SIGKILL else {0, 130}
    if ended.status not in (allowed if ended.hit else {0}):
        return f"status {ended.status} after {sent.name}: {last_line(ended)}"
    early = cold and "worldmodel/cli.py" not in ended.said
    return "" if early or "Traceback" not in ended.said else f"a traceback after {sent.name}: {last_line(ended)}"


def last_line(ended: Ended) -> str:
    """The last line that a process printed."""
    return (ended.said.strip().splitlines() or [""])[-1]


def difference(expected: dict[str, object], found: dict[str, object]) -> str:
    """Names of the files that differ."""
    names = [name for name in sorted({*expected, *found}) if expected.get(name) != found.get(name)]
    return f"differing: {', '.join(names[:5])}" if names else ""


def measure(config: InterruptionsConfig, folder: Path) -> bool:
    """Run everything and print the table; returns whether all results are identical."""
    inputs = folder / "in"
    inputs.mkdir(parents=True)
    make_inputs(inputs)
    whole, seconds = {}, {}
    for name in config.only:
        out = folder / f"{name}-whole"
        ended = run(filled(COMMANDS[name], inputs, out), folder / f"{name}-whole.txt", cold=False)
        assert ended.status == 0, ended.said
        whole[name], seconds[name] = contents(out), ended.seconds
        print(f"{name}: {ended.seconds:.1f} s uninterrupted, {len(whole[name])} files compared", flush=True)
    runs, same, hits = Counter(), Counter(), Counter()
    for index in range(config.runs):
        name = config.only[index % len(config.only)]
        sent = SIGNALS[index // len(config.only) % len(SIGNALS)]
        rng = np.random.default_rng([config.seed, index])
        cold = index % COLD_INTERVAL == COLD_INTERVAL - 1
        out = folder / f"{name}-{index}"
        arguments = filled(COMMANDS[name], inputs, out)
        several = "--workers" in arguments and index % config.workers_interval == config.workers_interval - 1
        if several:
            arguments[arguments.index("--workers") + 1] = "2"
        longest = seconds[name] + IMPORTING * (cold + several)
        number, wrong = interrupted_run(arguments, out, sent, longest, rng, cold=cold)
        wrong = wrong or difference(whole[name], contents(out))
        key = name, sent.name
        runs[key] += 1
        same[key] += not wrong
        hits[key] += number
        said = wrong or "identical"
        print(f"run {index}: {name}, {sent.name}, hit {number} times{', cold' * cold}: {said}", flush=True)
        if not wrong:
            shutil.rmtree(out)
    show(runs, same, hits)
    return same == runs


def show(runs: Counter, same: Counter, hits: Counter) -> None:
    """Print a Markdown table: identical results of interrupted runs."""
    rows = []
    for name in dict.fromkeys(name for name, _ in runs):
        keys = [(name, each.name) for each in SIGNALS]
        cells = [f"{same[key]} of {runs[key]} ({hits[key]} hits)" for key in keys]
        rows.append([name, *cells, f"{sum(same[k] for k in keys)} of {sum(runs[k] for k in keys)}"])
    print(table(["identical results", *(each.name for each in SIGNALS), "all"], rows))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    minutes = sum(each.ru_utime + each.ru_stime for each in used) / 60
    print(f"{same.total()} of {runs.total()} runs identical, {hits.total()} interruptions, {minutes:.1f} CPU minutes")


def main(config: InterruptionsConfig) -> None:
    """Measure; the exit status is 1 if any result differs."""
    if config.folder is not None:
        os.environ["WORLDMODEL_CACHE"] = str(config.folder / "cache")
        sys.exit(0 if measure(config, config.folder.resolve()) else 1)
    with tempfile.TemporaryDirectory() as name:
        os.environ["WORLDMODEL_CACHE"] = str(Path(name) / "cache")
        sys.exit(0 if measure(config, Path(name)) else 1)


if __name__ == "__main__":
    main(tyro.cli(InterruptionsConfig))
