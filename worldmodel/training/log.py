"""The progress of a run: step, time, progress line, loss table, TensorBoard."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from jaxtyping import Float
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

CLOCKS = {"wall": time.monotonic, "cpu": time.process_time}


def training_bar(*, disable: bool = False) -> Progress:
    """A progress line of its tasks' description, a bar, their field `note`, and the time."""
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        disable=disable,
        refresh_per_second=2,
    )


class RunClock:
    """Steps and seconds of a run, earlier sessions included; `start` begins a session.

    Args:
        total_steps: Largest number of steps of a run.
        minutes: Longest duration of a run; `None`: no limit.
        clock: Returns the seconds, one of `CLOCKS`.
    """

    def __init__(self, total_steps: int, minutes: float | None, clock: Callable[[], float]):
        self.total_steps, self.minutes, self.clock = total_steps, minutes, clock
        self.step, self.first_step, self.seconds_before = 0, 0, 0.0

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
        """Read the clock; `done` changes only here, so that it has one value throughout a step."""
        self.seconds_seen = self.seconds

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
        step: Rows from this step on are dropped.
    """

    def __init__(self, file: Path, step: int):
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = file.read_text().splitlines() if file.exists() else []
        self.rows = [row for row in map(json.loads, lines) if row["step"] < step]
        self.file = file
        file.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, row: Mapping[str, object]) -> None:
        """Append a row; NaN becomes null."""
        clean = {k: None if v != v else v for k, v in row.items()}  # NaN differs from itself
        self.rows.append(clean)
        with self.file.open("a") as table:
            table.write(json.dumps(clean) + "\n")


class RunLog(RunClock):
    """Count and show the steps and the seconds of a run; all processes use the first one's clock.

    Every step appends `step,loss` to `losses.csv`; a resumed run first drops the rows that it is
    about to repeat. `name` stands before the progress bar.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        out: Path,
        *,
        total_steps: int,
        minutes: float | None,
        clock: Callable[[], float] = time.monotonic,
        name: str = "pretrain",
    ):
        super().__init__(total_steps, minutes, clock)
        self.accelerator, self.out, self.name = accelerator, out, name

    def __enter__(self) -> "RunLog":
        """Open the loss table and the progress line."""
        self.start()
        self.out.mkdir(parents=True, exist_ok=True)
        main = self.accelerator.is_main_process
        if main:
            file = self.out / "losses.csv"
            rows = file.read_text().splitlines()[1:] if file.exists() and self.step else []
            kept = [row for row in rows if int(row.split(",")[0]) < self.step]
            file.write_text("\n".join(["step,loss", *kept]) + "\n")
            self.table = file.open("a", buffering=1)
        self.bar = training_bar(disable=not main)
        self.bar.start()
        self.task = self.bar.add_task(self.name, total=1.0, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close both."""
        self.bar.stop()
        if self.accelerator.is_main_process:
            self.table.close()

    def look(self) -> None:
        """Read the clock of the first process."""
        seen = torch.tensor(self.seconds, device=self.accelerator.device)
        self.seconds_seen = broadcast(seen).item()

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
            self.table.write(f"{self.step},{value:.9g}\n")
        self.count()
        if self.step % 10 == 0:
            scalars = {f"loss/{name}": part.item() for name, part in parts.items()}
            self.scalars({"loss/total": value, "learning_rate_factor": factor, **scalars})
        speed = (self.step - self.first_step) * frames / (self.clock() - self.started)
        shown = f"step {self.step}  loss {value:.5f}  {speed:.0f} frames/s  {note}"
        self.bar.update(self.task, completed=self.done, note=shown.rstrip())

    def validation(self, values: Mapping[str, float]) -> None:
        """Write a validation to TensorBoard and append it, with step and minutes, to a table."""
        row = {"step": self.step, "minutes": self.seconds / 60, **values}
        with (self.out / "validation.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.scalars(values)

    def scalars(self, values: Mapping[str, float]) -> None:
        """Write scalars to TensorBoard at the current step."""
        self.accelerator.log(dict(values), step=self.step)
