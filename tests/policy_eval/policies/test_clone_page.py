"""The page of a cloned policy."""

import numpy as np

from policy_eval.policies.clone_page import explained, meaning, write_page


def test_the_mean_explains_nothing_and_the_action_itself_all():
    demonstrated = np.array([[1.0, 0.0, 4.0], [-1.0, 2.0, 4.0]])
    planned = np.array([[1.0, 1.0, 4.0], [-1.0, 1.0, 4.0]])
    np.testing.assert_allclose(explained(planned, demonstrated), [1, 0, 0])


def test_a_poor_policy_is_called_one(tmp_path):
    assert len(meaning(np.array([0.9, 0.8]))) == 2
    assert "of the worst dim 20%" in meaning(np.array([0.9, 0.2]))[0]
    assert "--steps" in meaning(np.array([0.9, 0.2]))[1]
    actions = np.arange(8.0).reshape(4, 2)
    write_page(actions, actions, {"demonstrations": 3, "data": "demos"}, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "3 demonstrations of demos" in page and "explains 100%" in page
