"""The remarks of a ranking about trials that are left out."""

from policy_eval.ranking.report import fault_lines

FAULT = {"policy": "a", "place": "dream", "kind": "judge", "reason": "the judge was unsure at the end", "seed": 0}


def report(score, n, faults):
    policies = [{"name": "a", "dream": {"score": score, "n": n}, "real": None}]
    return {"faults": faults, "settings": {"faulty": "failure", "policies": {"a": "a"}}, "policies": policies}


def test_what_the_judge_left_undecided_bounds_the_success():
    """Of 10 trials 8 are decided and 4 of these succeed."""
    (line,) = fault_lines(report(0.5, 8, [FAULT, FAULT]))
    assert line.startswith("At the end of 2 dreamed trials of a the judge was unsure, and they are left out.")
    assert line.endswith("80% are decided; with the others its success is between 0.40 and 0.60.")


def test_a_policy_without_a_decided_trial_has_no_bounds():
    (line, absent) = fault_lines(report(0.5, 8, [FAULT]) | {"policies": []})
    assert line.endswith("and they are left out.") and absent == "a is not ranked: no trial of it is left."
