"""The comparison of two revisions: what counts as equal, its processes, and the probes themselves."""

import json
import subprocess
import sys

import numpy as np
import pytest
from fresh_python import python
from places import BENCHMARKS, ROOT

sys.path.insert(0, str(BENCHMARKS))
from invariants import IDENTICAL, InvariantsConfig, compare, difference, forbidden, main

PROBE = """
import sys
import numpy as np
np.savez(sys.argv[1], same=np.arange(3), changed=np.array([1.0, {}]))
"""
SMALL = """
import sys
sys.path.insert(0, "benchmarks")
import invariants_probe
import worldmodel.fidelity.uncertainty.calibration as calibration
invariants_probe.DREAMT = 2
invariants_probe.RANK["horizon"] = 4
few = {"horizon": 6, "streams": 4, "pool": 4, "validation_starts": 1, "validation_horizon": 2, "confirm": 2}
invariants_probe.IMAGINE.update(few)
calibration.STARTS = 4
invariants_probe.run(invariants_probe.PROBES)
"""


def test_differences_by_hand():
    old = np.array([1.0, -4.0, np.nan])
    assert difference(old, old.copy()) == IDENTICAL
    assert difference(old[:2], np.array([1.5, -4.25])) == "0.5 of 4"
    assert difference(old, old[:2]) == "float64 (3,) became float64 (2,)"
    assert difference(np.array([250], np.uint8), np.array([5], np.uint8)) == "245 of 250"
    assert difference(np.array("aa"), np.array("ab")) == "differs"
    assert difference(np.array("aa"), np.array("aa")) == IDENTICAL
    assert difference(old, None) == "only in the old tree"
    assert compare({"a": old}, {"b": old}) == {"a": "only in the old tree", "b": "only in the new tree"}
    nan = np.array([1.0, np.nan])
    assert difference(np.array([1.0, 2.0]), nan) != IDENTICAL


def test_only_what_is_allowed_may_differ():
    found = {"dream.pusht": IDENTICAL, "training.losses": "0.1 of 2", "training.weights": "differs"}
    assert forbidden(found, ()) == ["training.losses", "training.weights"]
    assert forbidden(found, ("training.l*",)) == ["training.weights"]
    assert forbidden(found, ("training.*", "dream.pusht")) == []
    with pytest.raises(ValueError, match=r"--allow trainig\.\*: no such name; there are dream.pusht, training.losses"):
        forbidden(found, ("trainig.*",))


def test_each_revision_runs_its_own_probe(tmp_path, capsys):
    tree = tmp_path / "tree"
    file = tree / "benchmarks" / "invariants_probe.py"
    file.parent.mkdir(parents=True)
    file.write_text(PROBE.format(2.0))
    git = ["git", "-C", str(tree), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "First"], ["tag", "first"]):
        subprocess.run([*git, *words], check=True)
    file.write_text(PROBE.format(2.5))
    config = {"against": "first", "tree": tree}
    assert main(InvariantsConfig(**config, json=tmp_path / "found.json")) == 1
    report = json.loads((tmp_path / "found.json").read_text())
    assert report == {
        "against": "first",
        "differences": {"same": IDENTICAL, "changed": "0.5 of 2"},
        "forbidden": ["changed"],
    }
    assert main(InvariantsConfig(**config, allow=("changed",))) == 0
    assert "2 arrays, 1 differ, 1 of them must not" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--against second: fatal"):
        main(InvariantsConfig(against="second", tree=tree))


@pytest.mark.slow
def test_the_probes_of_this_tree_find_what_they_look_for(tmp_path):
    done = python("-c", SMALL, tmp_path / "found.npz", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npz")
    assert found["dream.pusht.2-step.frames"].shape == (2, 2, 2, 64, 64, 3)
    assert len(found["training.losses"]) == 10
    assert found["imagination.imitation.remembered"] > 0 and found["imagination.pmpo.kl"] > 0
    assert {"fits.judge", "ranking.real.outcomes", "posttraining.weights", "recording.frames"} <= set(found)
