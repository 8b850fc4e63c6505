"""Where an imagination run stands: step, time, progress line, table of updates, TensorBoard."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

CLOCKS = {"wall": time.monotonic, "cpu": time.process_time}


class ImagineLog:
    """Count updates and seconds, and show them.

    Every update appends a row to `updates.jsonl`, every measurement one to `validation.jsonl`; a
    resumed run first drops the rows that it is about to repeat.

    Args:
        out: Folder of the tables and of TensorBoard's `log`.
        updates: How many updates a run has at most.
        minutes: How long it takes at most.
        clock: `wall` or `cpu`.
    """

    def __init__(self, out: Path, updates: int, minutes: float | None, clock: str):
        self.out, self.updates, self.minutes = out, updates, minutes
        self.clock = CLOCKS[clock]
        self.step, self.seconds_before, self.resumed_at = 0, 0.0, -1
        self.started = self.clock()
        self.measured: Mapping[str, float | int] = {}

    def resume(self, progress: Mapping) -> None:
        """Take over step and seconds of a saved state."""
        self.step = self.resumed_at = int(progress["step"])
        self.seconds_before = float(progress["seconds"])

    @property
    def seconds(self) -> float:
        """Time so far, earlier sessions included."""
        return self.seconds_before + self.clock() - self.started

    @property
    def over(self) -> bool:
        """Whether updates or minutes are used up."""
        late = self.minutes is not None and self.seconds >= 60 * self.minutes
        return self.step >= self.updates or late

    @property
    def progress(self) -> dict:
        """What a saved state needs to know."""
        return {"step": self.step, "seconds": self.seconds}

    def __enter__(self) -> "ImagineLog":
        """Open the tables and the progress line."""
        self.out.mkdir(parents=True, exist_ok=True)
        for name, last in (("updates", self.step - 1), ("validation", self.step)):
            file = self.out / f"{name}.jsonl"
            rows = file.read_text().splitlines() if file.exists() and self.step else []
            kept = [row for row in rows if json.loads(row)["step"] <= last]
            file.write_text("".join(row + "\n" for row in kept))
        self.writer = SummaryWriter(str(self.out / "log"), purge_step=self.step or None)
        self.bar = Progress(
            TextColumn("[bold]imagine"), BarColumn(), TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(), TimeRemainingColumn(), refresh_per_second=2,
        )  # fmt: skip
        self.bar.start()
        self.task = self.bar.add_task("", total=self.updates, completed=self.step, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Close them."""
        self.bar.stop()
        self.writer.close()

    def advance(self, shown: Mapping[str, float | int]) -> None:
        """Record one update."""
        self._append("updates", {"step": self.step, "seconds": self.seconds, **shown})
        for name, value in shown.items():
            self.writer.add_scalar(f"imagine/{name}", value, self.step)
        self.step += 1
        note = (
            f"update {self.step}  return {shown['return']:.3f}  KL {shown['kl']:.3f}  "
            f"value error {shown['value_error']:.3f}"
        )
        if self.measured:
            note += f"  held out {self.measured['return']:.3f}"
        self.bar.update(self.task, completed=self.step, note=note)

    def validation(self, measured: Mapping[str, float | int]) -> None:
        """Record a measurement on held-out frames."""
        self.measured = measured
        self._append("validation", {"seconds": self.seconds, **measured})
        for name in ("return", "solved"):
            self.writer.add_scalar(f"held_out/{name}", measured[name], self.step)

    def _append(self, name: str, row: Mapping[str, float | int]) -> None:
        with (self.out / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
