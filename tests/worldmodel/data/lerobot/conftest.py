import shutil

import pytest
from robot_sets import KINDS, Kind, write_set


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    kinds = KINDS | {"v2.1 images": Kind("v2.1", (), ("top", "wrist"))}
    return {name: write_set(root / name, kind) for name, kind in kinds.items()}


@pytest.fixture
def make(written, tmp_path):
    return lambda kind: shutil.copytree(written[kind], tmp_path / "d")
