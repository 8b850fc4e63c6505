"""The command line: one small table, and a frozen dataclass behind every command.

This is the composition root, the only module that imports packages above its own. It imports a
command's module when that command runs, so `worldmodel --help` answers at once.
"""

import difflib
import importlib
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from worldmodel.display.errors import said_of
from worldmodel.display.launched import check_launched, first_speaks
from worldmodel.processes import Interrupted, terminate_as_interrupt, wait_briefly
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
        more: One more sentence, for the help of this command.
        example: A command line that works, without `worldmodel`, for the help of this command.
        everyday: Options that its help shows first, in this order; required ones are always shown first.
    """

    help: str
    module: str
    config: str
    function: str
    more: str = ""
    example: str = ""
    everyday: str = ""


COMMANDS = {
    "record": Command(
        "Record episodes of an environment as a LeRobot data set.",
        "worldmodel.envs.record",
        "RecordConfig",
        "record",
        more="The actions come from a scripted behaviour or from a policy of yours.",
        example="record pusht --episodes 60 --out data/pusht",
        everyday="episodes behaviour size horizon seed shift workers",
    ),
    "pretrain": Command(
        "Train a world model from video and actions.",
        "worldmodel.training.pretrain",
        "PretrainCommand",
        "pretrain",
        more="The world model, the training state and validation videos are written to `--out`.",
        example="pretrain tiny --data data/pusht --out runs/pusht --minutes 20",
        everyday=(
            "steps minutes batch views size stride episodes relative-to validation-episodes init log device "
            "seed resume overwrite"
        ),
    ),
    "decoder": Command(
        "Train a small decoder for a world model with an autoencoder, so that it dreams faster.",
        "worldmodel.dreams.small_decoder",
        "DecoderConfig",
        "train_decoder",
        more="The world model with it is written to `--out`; pictures show what the decoders make of held-out frames.",
        example="decoder --world runs/wan-pusht --data data/pusht --out runs/wan-fast",
        everyday="steps width batch seed overwrite device",
    ),
    "rollout": Command(
        "Write a video that shows a recorded episode above its dream, for all cameras.",
        "worldmodel.dreams.rollout",
        "RolloutConfig",
        "rollout",
        more="The dream gets eight recorded frames and then only the recorded actions.",
        example="rollout --world checkpoints/pusht --data data/pusht --out dream.mp4",
        everyday="episode start horizon num-steps seed overwrite device",
    ),
    "fidelity": Command(
        "Measure how faithful a world model is to held-out episodes.",
        "worldmodel.fidelity.measure",
        "FidelityConfig",
        "fidelity",
        more="It dreams the recorded actions and compares the dreams with the recorded frames.",
        example="fidelity --world checkpoints/pusht --data data/pusht --out fidelity.json",
        everyday="out horizon starts episodes shifted cross-view num-steps include-train overwrite device",
    ),
    "clone": Command(
        "Clone a small visuomotor policy from recorded demonstrations.",
        "policy_eval.policies.clone",
        "CloneConfig",
        "clone",
        more="You can then rank it, or improve it with `worldmodel imagine`.",
        example="clone --data data/pusht-position --out runs/policy",
        everyday="demos episodes steps views size chunk relative-to goals overwrite seed device",
    ),
    "judge": Command(
        "Train a judge of success and reward on recorded frames, and measure it.",
        "policy_eval.judge.train",
        "JudgeConfig",
        "train_judge",
        more="The data needs the column `next.success`; with `--goals` it needs no labels, only pictures of the goal.",
        example="judge --data data/pusht-position --out runs/judge",
        everyday="goals world steps episodes test-data held-out overwrite seed device",
    ),
    "rank": Command(
        "Rank policies inside a world model, and compare the order with real trials.",
        "policy_eval.ranking.command",
        "RankConfig",
        "rank_policies",
        more="It writes a table, intervals, videos and a report; without `--real` it only dreams.",
        example=(
            "rank --world checkpoints/pusht --judge checkpoints/judges/pusht-position --policies "
            "checkpoints/policies/pusht-position --data data/pusht-position --horizon 100 --out runs/rank"
        ),
        everyday="episodes real real-episodes abstain abstain-data inverse-dynamics videos workers device",
    ),
    "calibrate": Command(
        "Set a judge's threshold so that dreams succeed as often as the real trials did, or so that it seldom errs.",
        "policy_eval.judge.calibration.calibrate",
        "CalibrateConfig",
        "calibrate_judge",
        more=(
            "It dreams the real trials of your policies again and counts the successes. With `--error` the judge gets "
            "a second threshold, and says that it is unsure rather than be wrong more often than that."
        ),
        example=(
            "calibrate --world checkpoints/metaworld-push --judge checkpoints/judges/metaworld-push-v3 --policies "
            "checkpoints/policies/metaworld-push-v3 --data data/rollouts --horizon 30 --out runs/judge"
        ),
        everyday="error episodes skip always workers overwrite device",
    ),
    "steer": Command(
        "Let a policy choose the best of several plans that a world model imagines.",
        "policy_eval.steering.command",
        "SteerConfig",
        "steer",
        more="The policy is not trained; with `--real` the gain is measured.",
        example=(
            "steer --policy checkpoints/policies/pusht-position/chunk-4 --world checkpoints/pusht --judge "
            "checkpoints/judges/pusht-position --out runs/steered --real pusht-position --data data/pusht-position"
        ),
        everyday="judge real data episodes horizon k spread lookahead workers device",
    ),
    "imagine": Command(
        "Improve a cloned policy inside a world model, without a real step.",
        "rl_posttrain.imagination.train",
        "ImagineConfig",
        "imagine",
        more="Check the world model first with `worldmodel rank`, and pass its result as `--ranking`.",
        example=(
            "imagine --world checkpoints/pusht --judge checkpoints/judges/pusht-position --policy "
            "checkpoints/policies/pusht-position/demos-150 --data data/pusht-position --out runs/better-policy"
        ),
        everyday="ranking method updates minutes streams horizon episodes real videos log device seed resume overwrite",
    ),
    "adapt": Command(
        "Adapt a policy that is shown a goal to a changed environment, by a few real rollouts of its own.",
        "rl_posttrain.adaptation.adapt",
        "AdaptConfig",
        "adapt",
        more="The frames that a rollout reached are taken as its goals, so failures teach as well.",
        example="adapt --policy runs/policy --real pusht-position --shift turned-actions --out runs/adapted",
        everyday="shift episodes rounds horizon trials seed device",
    ),
    "posttrain": Command(
        "Improve a world model by rewards on its own rollouts.",
        "rl_posttrain.posttraining.train",
        "PosttrainConfig",
        "posttrain",
        more="The last world model that is no worse on held-out episodes is kept.",
        example="posttrain --world checkpoints/pusht --data data/pusht --out runs/better-world --minutes 30",
        everyday=(
            "inverse-dynamics objective steps minutes learning-rate train episodes patience log device "
            "seed resume overwrite"
        ),
    ),
    "inverse-dynamics": Command(
        "Learn to decode the actions of a video, for rewards.",
        "policy_eval.judge.inverse_dynamics_training",
        "InverseDynamicsTraining",
        "train_inverse_dynamics",
        more="Pass its folder to `worldmodel posttrain --inverse-dynamics`.",
        example="inverse-dynamics --data data/pusht --world checkpoints/pusht --out runs/inverse-dynamics",
        everyday="world steps episodes relative-to overwrite seed device",
    ),
    "align": Command(
        "Fine-tune world model and judge on real rollouts of policies, and rank again.",
        "rl_posttrain.alignment",
        "AlignConfig",
        "align",
        more="It shows how many real rollouts make the order in dreams agree with the real one.",
        example=(
            "align --world checkpoints/pusht --judge checkpoints/judges/pusht-position --policies "
            "checkpoints/policies/pusht-position --real pusht-position --real-scores "
            "checkpoints/policies/pusht-position/real.json --world-data data/pusht --judge-data data/judge "
            "--data data/held-out --horizon 100 --out runs/align"
        ),
        everyday="rollouts episodes workers device",
    ),
    "bench": Command(
        "Measure how fast a world model is, and what share of the hardware's peak speed it reaches.",
        "worldmodel.bench.measure",
        "BenchConfig",
        "bench",
        more="With `--data` it also measures training.",
        example="bench --world checkpoints/pusht --batch 1 8 --num-steps 2",
        everyday="batch num-steps context out data device overwrite",
    ),
    "serve": Command(
        "Serve a world model, or a policy, to other programs over a websocket.",
        "policy_eval.serving.command",
        "ServeConfig",
        "serve",
        more="`worldmodel.connect` is the Python client of a served world model.",
        example="serve --world checkpoints/pusht --data data/pusht --port 8000",
        everyday="world policy data judge host port processes token num-steps batch plans device",
    ),
    "info": Command(
        "Show what is in a data set.",
        "worldmodel.bench.info",
        "InfoConfig",
        "info",
        more="It also names what is broken or suspicious, and with --speed whether training waits for the pictures.",
        example="info data/pusht",
        everyday="views look-at speed world episodes skip-broken",
    ),
    "push": Command(
        "Put a world model, policy or judge on the hub, with a card of its figures.",
        "worldmodel.model.hub",
        "PushConfig",
        "push",
        more="Log in first with `hf auth login`; with --dry-run nothing is uploaded.",
        example="push runs/pusht hf://USER/NAME --license apache-2.0 --dry-run",
        everyday="license data datasets limits dry-run no-private",
    ),
    "demo": Command(
        "Open a page on which you drive a world model with the arrow keys.",
        "demos.page.app",
        "DemoConfig",
        "run_demo",
        more="It shows the shipped world model of PushT unless you name another one.",
        example="demo --world checkpoints/pusht",
        everyday="world data port host judge policies no-browser device",
    ),
    "quickstart": Command(
        "Record PushT, train, dream, measure, and write a report.",
        "demos.quickstart.stages",
        "QuickstartConfig",
        "run_quickstart",
        more="With the defaults it takes about ten minutes on two cores.",
        example="quickstart --out runs/quickstart",
        everyday="out world episodes train-minutes posttrain-minutes imagine-minutes overwrite device",
    ),
}

CONTINUES = ("record", "rank", "steer", "adapt", "align")  # finished parts are kept: the same call goes on
RESUMES = ("pretrain", "posttrain", "imagine")  # commands that save their state, for --resume
SPREADS = ("pretrain", "posttrain", "imagine", "clone", "judge", "inverse-dynamics")  # under `accelerate launch`
TRAINS = ("pretrain", "posttrain", "align", "bench")  # commands that are faster after a restart of the process

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
    """Run the command `name` with the config that `arguments` describe, or print its help."""
    warnings.showwarning = show_warning
    command = COMMANDS[name]
    module = importlib.import_module(command.module)
    if "--help" in arguments or "-h" in arguments:
        print(help_of(name, arguments), end="")
    else:
        getattr(module, command.function)(parse(name, arguments))


def parse(name: str, arguments: Sequence[str]) -> Any:
    """The config of the command `name` that `arguments` describe; ends the process with an explanation of a mistake."""
    import tyro

    config = getattr(importlib.import_module(COMMANDS[name].module), COMMANDS[name].config)
    return tyro.cli(config, prog=f"worldmodel {name}", args=arguments, config=(tyro.conf.FlagCreatePairsOff,))


def help_of(name: str, arguments: Sequence[str] = ()) -> str:
    """The help of the command `name`; `arguments` may begin with the name of a preset."""
    from worldmodel.display.help import help_text

    command = COMMANDS[name]
    config = getattr(importlib.import_module(command.module), command.config)
    about, example = f"{command.help} {command.more}", f"worldmodel {command.example}"
    return help_text(f"worldmodel {name}", about, example, config, command.everyday.split(), arguments)


def show_warning(message: Warning | str, category: type[Warning], *where: object) -> None:
    """Print a warning about data as one line, and other warnings as Python does."""
    ours = category.__name__ == "DataWarning"
    print(f"worldmodel: {message}" if ours else warnings.formatwarning(message, category, *where[:2]), file=sys.stderr)


def fail(message: str) -> int:
    """Print `message` as one line on stderr; returns the exit status of a user's mistake."""
    print(message, file=sys.stderr)
    return 2


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
    wait_briefly()
    try:
        check_launched(name, SPREADS)
        with terminate_as_interrupt(), first_speaks():
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
