"""The progress of an imagination run: step, time, progress line, table of updates, tracker."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from accelerate import Accelerator

from worldmodel.display.progress import LOG, ProgressLine
from worldmodel.training.accelerator import end_trackers, start_trackers
from worldmodel.training.log import CLOCKS, RunClock, Table
from worldmodel.training.share import share, wait_for_all

NOTED = {"return": "return", "kl": "KL", "value_error": "value error", "gain": "gain of the best plan", "loss": "loss"}
"""What the progress line shows of an update."""


class ImagineLog(RunClock):
    """Count updates and seconds, and show them.

    Every update appends a row to `updates.jsonl`, every measurement one to `validation.jsonl`; a
    resumed run first drops the rows that it is about to repeat. While the log is open, Ctrl-C and
    SIGTERM set `stopping`.

    Args:
        accelerator: It has the tracker.
        out: Folder of the tables.
        updates: Maximum number of updates of a run.
        minutes: Maximum duration of the run.
        clock: `wall` or `cpu`.
    """

    def __init__(self, accelerator: Accelerator, out: Path, updates: int, minutes: float | None, clock: str):
        super().__init__(updates, minutes, CLOCKS[clock])
        self.accelerator, self.out, self.resumed = accelerator, out, False
        self.measured: Mapping[str, float | int] = {}

    def resume(self, progress: Mapping) -> None:
        """Take over step and seconds of a saved state; it was saved after the measurement of its step."""
        super().resume(progress)
        self.resumed = True

    def __enter__(self) -> "ImagineLog":
        """Open the tables, the tracker and the progress line."""
        self.start()
        if share().first:
            self.updates = Table(self.out / "updates.jsonl", self.step)
            self.validations = Table(self.out / "validation.jsonl", self.step + int(self.resumed))
        start_trackers(self.accelerator, self.out, self.step)
        self.stop.__enter__()
        self.bar = ProgressLine("imagine", 1.0, completed=self.done, log=self.out / LOG, disable=not share().first)
        self.bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close them."""
        self.bar.__exit__(kind, error, trace)
        end_trackers(self.accelerator)
        if kind is None:
            wait_for_all()
        self.stop.__exit__(kind, error, trace)

    def advance(self, shown: Mapping[str, float | int]) -> None:
        """Record one update."""
        if share().first:
            self.updates.add({"step": self.step, "seconds": self.seconds, **shown})
        self.accelerator.log({f"imagine/{name}": value for name, value in shown.items()}, step=self.step)
        self.count()
        note = f"update {self.step} of {self.total_steps}"
        note += "".join(f"  {words} {shown[name]:.3f}" for name, words in NOTED.items() if name in shown)
        if self.measured:
            note += f"  held out {self.measured['return']:.3f}"
        self.bar.update(self.done, note)

    def validation(self, measured: Mapping[str, float | int]) -> None:
        """Record a measurement on held-out frames."""
        self.measured = measured
        if share().first:
            self.validations.add({"seconds": self.seconds, **measured})
        values = {f"held_out/{name}": measured[name] for name in ("return", "solved")}
        self.accelerator.log(values, step=self.step)


def summary(out: Path, report: Mapping[str, Any]) -> str:
    """One paragraph for the terminal."""
    first, best = report["first"], report["best"]
    if report["kept"] == 0:
        return (
            f"{out}: nothing surely better than the cloned policy was found in dreams of held-out "
            f"frames within {report['updates']} updates; the cloned policy is kept"
        )
    return (
        f"{out}: in dreams of held-out frames the return rose from {first['return']:.3f} to "
        f"{best['return']:.3f} and success from {first['solved']:.2f} to {best['solved']:.2f}, "
        f"after {best['step']} of {report['updates']} updates, {report['seconds']:.0f} s; measure "
        "it for real with `worldmodel rank`"
    )
