"""Outcomes of real trials in the files that a lab writes."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from policy_eval.ranking.outcomes import read_outcomes
from policy_eval.scores import Scores

CSV = "policy, start, success, operator\na, 3, 1, Kim\na, 12, false, Kim\nb, 3, 0.25, Lee\n"


def test_a_table_of_text(tmp_path):
    file = tmp_path / "trials.csv"
    file.write_text("\ufeff" + CSV)
    found = read_outcomes(file, ["a"])
    assert list(found) == ["a"]
    assert (found["a"].seeds.tolist(), found["a"].outcomes.tolist()) == ([3, 12], [1, 0])
    assert read_outcomes(file, ["b", "a"])["b"].outcomes.tolist() == [0.25]


def test_parquet_and_stored_scores_say_the_same(tmp_path):
    big = 2**60 + 1  # no float holds it
    table = pa.table({"success": [True, False], "policy": ["a", "a"], "start": [big, 4]})
    pq.write_table(table, tmp_path / "trials.parquet")
    found = read_outcomes(tmp_path / "trials.parquet", ["a"])["a"]
    assert (found.seeds.tolist(), found.outcomes.tolist()) == ([big, 4], [1, 0])
    (tmp_path / "trials.json").write_text(json.dumps({"a": found.to_json()}))
    again = read_outcomes(tmp_path / "trials.json", ["a"])["a"]
    assert isinstance(again, Scores) and np.array_equal(again.seeds, found.seeds)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("policy,start\na,1\n", "has the columns policy, start, but no success"),
        ("", "has the columns none, but no policy, start, success"),
        ("policy,start,success\na,1,1\na,1,0\n", "line 3: a second trial of the policy 'a' from the start 1"),
        ("policy,start,success\na,1.5,1\n", "line 2: start is '1.5', expected a whole number"),
        ("policy,start,success\na,,1\n", "line 2: start is '', expected a whole number"),
        ("policy,start,success\na,1,maybe\n", "line 2: success is 'maybe', expected true or false"),
        ("policy,start,success\na,1,2\n", "line 2: success is '2'"),
        ("policy,start,success\na,1,\n", "line 2: success is ''"),
        ("policy,start,success\na,1\n", "line 2: success is None"),
        ("policy,start,success\nb,1,1\n", "no real trials of a; there are trials of b"),
        ("policy,start,success\n", "no real trials of a; there are trials of none"),
    ],
)
def test_a_wrong_table_is_one_line(tmp_path, text, said):
    file = tmp_path / "trials.csv"
    file.write_text(text)
    with pytest.raises(ValueError) as caught:
        read_outcomes(file, ["a"])
    assert str(caught.value).startswith(f"{file}: {said}")


def test_a_file_that_is_no_table_is_one_line(tmp_path):
    file = tmp_path / "trials.parquet"
    file.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ValueError, match=r"trials\.parquet: "):
        read_outcomes(file, ["a"])
    (tmp_path / "trials.csv").write_bytes(b"policy,start,success\n\xff\xfe,1,1\n")
    with pytest.raises(ValueError, match=r"trials\.csv: "):
        read_outcomes(tmp_path / "trials.csv", ["a"])
