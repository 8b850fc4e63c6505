"""How much of the actions do recorded and dreamed frames show? A table of the reports of `worldmodel inverse-dynamics`.

worldmodel inverse-dynamics --data data/push --world checkpoints/metaworld-push --out runs/inverse/push
python benchmarks/inverse_dynamics.py runs/inverse/push
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from policy_eval.judge.inverse_dynamics_page import COLUMNS, table_rows
from worldmodel.files import read_object
from worldmodel.model.card import table


@dataclass(frozen=True)
class ReportsConfig:
    """Which reports to print."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """What `worldmodel inverse-dynamics` wrote."""


def main(config: ReportsConfig) -> None:
    """Print a table for every report."""
    for folder in config.folders:
        report = read_object(folder / "report.json")
        counts = (report[f"{name}_episodes"] for name in ("train", "calibration", "test"))
        print(f"\n## {folder.name}: {' + '.join(map(str, counts))} episodes, {report['real']['n']} actions measured\n")
        print(table(COLUMNS, table_rows(report)))


if __name__ == "__main__":
    main(tyro.cli(ReportsConfig, description=__doc__))
