"""The progress of a run: step, time, progress line, loss table, tracker."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor

from worldmodel.display.progress import LOG, ProgressLine
from worldmodel.files import naming, write_text
from worldmodel.processes import Interrupted, StopRequest
from worldmodel.training.accelerator import end_trackers, start_trackers
from worldmodel.training.share import agreed, figures_over_processes, wait_for_all

CLOCKS = {"wall": time.monotonic, "cpu": time.process_time}


class RunClock:
    """Steps and seconds of a run, earlier sessions included; `start` begins a session.

    All processes use the first one's clock, and stop when one of them was asked to.

    Attributes:
        stop: Whether the user asked to stop; `stopping` keeps one value throughout a step.

    Args:
        total_steps: Largest number of steps of a run.
        minutes: Longest duration of a run; `None` for no limit.
        clock: Returns the seconds, one of `CLOCKS`.
    """

    def __init__(self, total_steps: int, minutes: float | None, clock: Callable[[], float]):
        self.total_steps, self.minutes, self.clock = total_steps, minutes, clock
        self.step, self.first_step, self.seconds_before = 0, 0, 0.0
        self.stop, self.stopping = StopRequest(), False

    def resume(self, progress: Mapping) -> None:
        """Take over step and seconds of a saved state."""
        self.step = self.first_step = int(progress["step"])
        self.seconds_before = float(progress["seconds"])

    def start(self) -> None:
        """Count the seconds from now."""
        self.started = self.clock()
        self.look()

    def count(self) -> None:
        """Count a step, and read the clock for the next one."""
        self.step += 1
        self.look()

    def look(self) -> None:
        """Read the clock; `done` and `stopping` change only here, so that they have one value throughout a step."""
        self.seconds_seen, self.stopping = agreed(self.seconds, self.stop.requested)

    def leave_if_asked(self) -> None:
        """End a run whose state has just been saved, if the user asked for it.

        Raises:
            Interrupted: The user asked for it.
        """
        if self.stopping:
            wait_for_all()
            raise Interrupted(f"stopped and saved after step {self.step} of {self.total_steps}")

    @property
    def seconds(self) -> float:
        """Training time so far, earlier sessions included."""
        return self.seconds_before + self.clock() - self.started

    @property
    def done(self) -> float:
        """Share of the run that is over: the larger one of the shares of steps and of minutes."""
        share = self.step / self.total_steps
        return share if self.minutes is None else max(share, self.seconds_seen / 60 / self.minutes)

    @property
    def progress(self) -> dict:
        """Step and seconds, for a saved state."""
        return {"step": self.step, "seconds": self.seconds}


class Table:
    """Rows with a `step` in a JSON-lines file; a resumed run drops those it will repeat.

    Args:
        file: The table.
        step: Rows from this step on are dropped, and also an incomplete row that a killed run left.

    Raises:
        ValueError: The file is not such a table.
    """

    def __init__(self, file: Path, step: int):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            rows = [json.loads(row) for row in whole_lines(file)]
            self.rows = [row for row in rows if row["step"] < step]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{file}: not a table of JSON lines with a step: {error!r}") from error
        self.file = file
        if file.exists():
            write_text(file, "".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, row: Mapping[str, object]) -> None:
        """Append a row; NaN becomes null."""
        clean = {k: None if v != v else v for k, v in row.items()}  # NaN differs from itself
        self.rows.append(clean)
        with naming(self.file), self.file.open("a") as table:
            table.write(json.dumps(clean) + "\n")


def whole_lines(file: Path) -> list[str]:
    """The lines of a file that end; none if there is no file."""
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [line.rstrip("\n") for line in lines if line.endswith("\n")]


class RunLog(RunClock):
    """Count and show the steps and the seconds of a run.

    Every step appends `step,loss` to `losses.csv`; a resumed run first drops the rows that it is
    about to repeat. `train.log` keeps the progress line, too. While the log is open, Ctrl-C and
    SIGTERM set `stopping`.

    Args:
        accelerator: It has the tracker.
        out: Folder of the tables.
        total_steps: Maximum number of steps of a run.
        minutes: Maximum duration of the run.
        clock: `wall` or `cpu`.
        name: What runs, for the progress line.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        out: Path,
        *,
        total_steps: int,
        minutes: float | None,
        clock: str = "wall",
        name: str = "pretrain",
    ):
        super().__init__(total_steps, minutes, CLOCKS[clock])
        self.accelerator, self.out, self.name = accelerator, out, name

    def __enter__(self) -> "RunLog":
        """Open the tables, the tracker and the progress line."""
        self.start()
        self.out.mkdir(parents=True, exist_ok=True)
        main = self.accelerator.is_main_process
        if main:
            file = self.out / "losses.csv"
            kept = whole_lines(file)[1 : self.step + 1]  # one row a step
            write_text(file, "\n".join(["step,loss", *kept]) + "\n")
            self.table = file.open("a", buffering=1)
            self.validations = Table(self.out / "validation.jsonl", self.step + int(self.step > 0))
        start_trackers(self.accelerator, self.out, self.step)
        self.stop.__enter__()
        self.bar = ProgressLine(self.name, 1.0, completed=self.done, log=self.out / LOG, disable=not main)
        self.bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close them."""
        self.bar.__exit__(kind, error, trace)
        if self.accelerator.is_main_process:
            self.table.close()
        self.stop.__exit__(kind, error, trace)

    def leave_if_asked(self) -> None:
        """End a run whose state has just been saved, if the user asked for it; the tracker is closed.

        Raises:
            Interrupted: The user asked for it.
        """
        if self.stopping:
            end_trackers(self.accelerator)
        super().leave_if_asked()

    def advance(
        self, loss: Float[Tensor, ""], parts: Mapping[str, Tensor], *, frames: int, factor: float, note: str = ""
    ) -> None:
        """Record one step; `note` is added to the progress line.

        Raises:
            ValueError: If the loss is not finite.
        """
        value = self.accelerator.reduce(loss.detach().float(), "mean").item()
        if not torch.isfinite(torch.tensor(value)):
            raise ValueError(f"step {self.step}: loss is {value}; lower --learning-rate")
        if self.accelerator.is_main_process:
            with naming(self.out / "losses.csv"):
                self.table.write(f"{self.step},{value:.9g}\n")
        self.count()
        if self.step % 10 == 0:
            scalars = figures_over_processes({f"loss/{name}": part.item() for name, part in parts.items()})
            self.scalars({"loss/total": value, "learning_rate_factor": factor, **scalars})
        speed = (self.step - self.first_step) * frames / max(self.clock() - self.started, 1e-9)
        shown = f"step {self.step} of {self.total_steps}  loss {value:.5f}  {speed:.0f} frames/s  {note}"
        self.bar.update(self.done, shown.rstrip())

    def validation(self, values: Mapping[str, float]) -> None:
        """Send a validation to the tracker, and append it to a table with its step and minutes."""
        self.validations.add({"step": self.step, "minutes": self.seconds / 60, **values})
        self.scalars(values)

    def scalars(self, values: Mapping[str, float]) -> None:
        """Send scalars to the tracker at the current step."""
        self.accelerator.log(dict(values), step=self.step)
