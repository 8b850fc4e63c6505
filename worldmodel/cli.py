"""The command line: one small table, and a frozen dataclass behind every command.

This is the composition root, the only module that imports packages above its own. It imports a
command's module when that command runs, so `worldmodel --help` answers at once.
"""

import difflib
import errno
import importlib
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from worldmodel.processes import Interrupted, terminate_as_interrupt
from worldmodel.resolve import missing_extra
from worldmodel.training.malloc import keep_freed_memory


@dataclass(frozen=True)
class Command:
    """Where the code of a command is.

    Attributes:
        help: What it does, in one line.
        module: The module that is imported to run it.
        config: Name of its frozen config dataclass, or of a choice between presets of it; the flags
            are generated from its fields.
        function: Name of the function that takes the config.
    """

    help: str
    module: str
    config: str
    function: str


COMMANDS = {
    "record": Command(
        "Record episodes of an environment as a LeRobot data set.", "worldmodel.envs.record", "RecordConfig", "record"
    ),
    "pretrain": Command(
        "Train a world model from video and actions.", "worldmodel.training.pretrain", "PretrainCommand", "pretrain"
    ),
    "rollout": Command(
        "Write a video that shows a recorded episode above its dream, for all cameras.",
        "worldmodel.dreams.rollout",
        "RolloutConfig",
        "rollout",
    ),
    "fidelity": Command(
        "Measure how faithful a world model is to held-out episodes.",
        "worldmodel.fidelity.measure",
        "FidelityConfig",
        "fidelity",
    ),
    "clone": Command(
        "Clone a small visuomotor policy from recorded demonstrations.",
        "policy_eval.policies.clone",
        "CloneConfig",
        "clone",
    ),
    "judge": Command(
        "Train a judge of success and reward on recorded frames, and measure it.",
        "policy_eval.judge.train",
        "JudgeConfig",
        "train_judge",
    ),
    "rank": Command(
        "Rank policies inside a world model, and compare the order with real trials.",
        "policy_eval.ranking.command",
        "RankConfig",
        "rank_policies",
    ),
    "calibrate": Command(
        "Set a judge's threshold so that dreams succeed as often as the real trials did.",
        "policy_eval.judge.calibration",
        "CalibrateConfig",
        "calibrate_judge",
    ),
    "imagine": Command(
        "Improve a cloned policy inside a world model, without a real step.",
        "rl_posttrain.imagination.train",
        "ImagineConfig",
        "imagine",
    ),
    "posttrain": Command(
        "Improve a world model by rewards on its own rollouts.",
        "rl_posttrain.posttraining.train",
        "PosttrainConfig",
        "posttrain",
    ),
    "inverse-dynamics": Command(
        "Learn to decode the actions of a video, for rewards.",
        "policy_eval.judge.inverse_dynamics_training",
        "InverseDynamicsTraining",
        "train_inverse_dynamics",
    ),
    "align": Command(
        "Fine-tune world model and judge on real rollouts of policies, and rank again.",
        "rl_posttrain.alignment",
        "AlignConfig",
        "align",
    ),
    "bench": Command(
        "Measure how fast a world model is, and what share of the hardware's peak speed it reaches.",
        "worldmodel.bench.measure",
        "BenchConfig",
        "bench",
    ),
    "serve": Command(
        "Serve a world model, or a policy, to other programs over a websocket.",
        "policy_eval.serving.command",
        "ServeConfig",
        "serve",
    ),
    "info": Command("Show what is in a data set.", "worldmodel.data.info", "InfoConfig", "info"),
    "push": Command(
        "Put a world model, policy or judge on the hub, with a card of its figures.",
        "worldmodel.model.hub",
        "PushConfig",
        "push",
    ),
    "demo": Command(
        "Open a page on which you drive a world model with the arrow keys.", "demos.page.app", "DemoConfig", "run_demo"
    ),
    "quickstart": Command(
        "Record PushT, train, dream, measure, and write a report.",
        "demos.quickstart.stages",
        "QuickstartConfig",
        "run_quickstart",
    ),
}

CONTINUES = ("record", "rank", "align")  # commands whose finished parts are kept: the same call goes on
RESUMES = ("pretrain", "posttrain", "imagine")  # commands that save their state, for --resume
TRAINS = ("pretrain", "posttrain", "align", "bench")  # commands that are faster after a restart of the process

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # the disk is full or read-only

OVERVIEW = """\
usage: worldmodel COMMAND [options]

A learned simulator for robots: train it from video and actions, measure it, steer it live.

commands:
{commands}

worldmodel COMMAND --help   every option of a command
--traceback                 with any command: show where an error came from
"""


def overview() -> str:
    """The text of `worldmodel --help`."""
    width = max(map(len, COMMANDS))
    rows = [f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items()]
    return OVERVIEW.format(commands="\n".join(rows))


def run(name: str, arguments: Sequence[str]) -> None:
    """Parse `arguments` into the config of the command `name` and run it."""
    import tyro

    warnings.showwarning = show_warning
    command = COMMANDS[name]
    module = importlib.import_module(command.module)
    config = tyro.cli(
        getattr(module, command.config),
        prog=f"worldmodel {name}",
        description=command.help,
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    getattr(module, command.function)(config)


def show_warning(message: Warning | str, category: type[Warning], *where: object) -> None:
    """Print what is odd about data as one line, and other warnings as Python does."""
    ours = category.__name__ == "DataWarning"
    print(f"worldmodel: {message}" if ours else warnings.formatwarning(message, category, *where[:2]), file=sys.stderr)


def fail(message: str) -> int:
    """Print `message` as one line on stderr; returns the exit status of a user's mistake."""
    print(message, file=sys.stderr)
    return 2


def said_of(error: OSError) -> str | None:
    """One line about an error of the operating system: a file that cannot be read or written, or a full disk.

    `None` for other errors, such as those of a network, which name no file.
    """
    if error.filename is not None:
        return f"{error.filename}: {error.strerror or error}"
    return error.strerror if error.errno in DISK else None


def how_to_go_on(name: str, arguments: Sequence[str], error: KeyboardInterrupt) -> str:
    """One line about an interrupted command: what is saved, and the command line that goes on."""
    kept = [argument for argument in arguments if argument not in ("--overwrite", "--resume")]
    again = f"worldmodel {shlex.join([name, *kept])}"
    if name in RESUMES and isinstance(error, Interrupted):
        return f"{error}; go on with: {again} --resume"
    if name in CONTINUES:
        return f"interrupted; what is finished is kept, go on with: {again}"
    return "interrupted"


def end_now(status: int) -> None:
    """End this process with `status`.

    If the interrupt came while `python -m` executed a string, as for every dataclass, Python would
    otherwise end the process by SIGINT, although the interrupt was caught.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns 0, or 2 after one line about a user's mistake, or 130 after an interrupt.

    An error of the operating system that names a file, or that says that a disk is full, is a user's mistake, too;
    so is a missing package that an extra of this one installs.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview(), end="")
        return 0
    show_traceback = "--traceback" in arguments
    name, *rest = [argument for argument in arguments if argument != "--traceback"] or [""]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the commands are {', '.join(COMMANDS)}"
        return fail(f"worldmodel: there is no command {name!r}; {hint}")
    if argv is None and name in TRAINS and "--help" not in rest:
        keep_freed_memory()
    try:
        with terminate_as_interrupt():
            run(name, rest)
    except (ValueError, OSError) as error:
        said = said_of(error) if isinstance(error, OSError) else error
        if show_traceback or said is None:
            raise
        return fail(f"worldmodel {name}: {said}")
    except ModuleNotFoundError as error:
        lacking = missing_extra(error.name)
        if show_traceback or lacking is None:
            raise
        return fail(f"worldmodel {name} {lacking}")
    except KeyboardInterrupt as error:
        print(f"worldmodel {name}: {how_to_go_on(name, rest, error)}", file=sys.stderr)
        if argv is None:
            end_now(130)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
