"""Where things lie."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
LEROBOT_V21 = DATA / "lerobot_v21_pusht"
LEROBOT_V30 = DATA / "lerobot_v30_pusht"
BENCHMARKS = ROOT / "benchmarks"
