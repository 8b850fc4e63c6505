"""Every kind of page that a command writes, in a real browser: on a phone and on a laptop, light and dark."""

import json

import numpy as np
import pytest
import torch
from axe import serious_violations
from browser import browser
from drawn_episodes import DrawnEpisodes
from drawn_episodes import tiny_world as drawn_world
from tiny import tiny_world

from policy_eval.judge.calibration.page import write_page as write_calibration
from policy_eval.judge.scores import JudgedEpisode, judge_report
from policy_eval.judge.train_page import write_page as write_judge
from policy_eval.policies.clone_page import write_page as write_clone
from policy_eval.ranking.plan import Need, PairPlan
from policy_eval.ranking.plan_page import write_plan
from policy_eval.ranking.rank import rank
from policy_eval.ranking.report import write_report
from policy_eval.scores import Scores
from rl_posttrain.alignment_page import write_page as write_alignment
from rl_posttrain.imagination.page import Dreamed
from rl_posttrain.imagination.page import write_page as write_imagination
from rl_posttrain.posttraining.changes import Change
from rl_posttrain.posttraining.curves import plot_run
from rl_posttrain.posttraining.page import write_page as write_posttraining
from worldmodel.data.video.write import write_video
from worldmodel.display.training_page import write_training
from worldmodel.fidelity.measure import measure_fidelity
from worldmodel.fidelity.page import write_page as write_fidelity

pytestmark = pytest.mark.slow
NAMES = ("fidelity", "ranking", "plan", "posttraining", "imagination", "alignment", "calibration", "training")
NAMES += ("judge", "clone")


def trials(name, successes):
    outcomes = np.array([1.0] * successes + [0.0] * (20 - successes))
    return Scores(name, np.arange(20), outcomes, np.zeros(20), np.ones(20, int))


def ranking(film, file):
    places = [{f"a-long-name-of-a-policy-{n}": trials(str(n), 3 * n + more) for n in range(6)} for more in (0, 2)]
    about = {"real": "pusht", "horizon": 60, "world": "checkpoints/" + "x" * 80, "control": "none", "faulty": "failure"}
    report = {**rank(*places, seed=0).to_json(), "optimism": None, "faults": [], "abstention": None}
    report["settings"] = {**about, "policies": dict.fromkeys(places[0], "folder")}
    write_report(json.loads(json.dumps(report)), [(film, "reality above, the dream below")], file)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The folder with a page of each kind."""
    out = tmp_path_factory.mktemp("pages")
    film, world = out / "film.mp4", tiny_world()
    write_video(film, np.zeros((8, 552, 512, 3), np.uint8), 10)
    source = DrawnEpisodes([14, 13])
    measured = measure_fidelity(drawn_world(), source, horizon=5, starts=1)
    write_fidelity(measured, drawn_world(), source, 0, out / "fidelity.html")
    ranking(film, out / "ranking.html")
    need = Need(20, 0.2, -0.1, 0.5, 40, 20, None)
    write_plan([PairPlan("a-long-name", f"another-{n}", need, need, None) for n in range(3)], 0.8, out / "plan.html")
    plot_run([], [{"step": n, "psnr": 20.0, "sharpness": 0.9, "motion": 1.0} for n in range(2)], out / "curve.png")
    change = Change("psnr", 20.0, 21.0, (0.5, 1.5), 1)
    write_posttraining("2 updates.", ["Better."], [change], [film], out)
    (out / "report.html").rename(out / "posttraining.html")
    (out / "validation.jsonl").write_text('{"step": 0, "return": 0.1}\n')
    dreamed = Dreamed(np.arange(4.0), np.ones(4), torch.zeros(3, 2, 16, 24, 3, dtype=torch.uint8))
    about = {"updates": 2, "seconds": 3.0, "kept": 1}
    write_imagination(dreamed, dreamed, np.arange(4), about, world, [film], out)
    (out / "report.html").rename(out / "imagination.html")
    row = {"value": 0.5, "low": 0.4, "high": 0.6}
    write_alignment(
        {n: {"pearson": row, "bias": row} for n in ("0", "25")}, ("pearson", "bias"), [film], out / "alignment.html"
    )
    found = {"rollouts": "data", "episodes": 20, "real": 0.5, "dreamt_before": 0.7, "dreamed": 0.5}
    found |= {"difference_before": [0.1, 0.3], "threshold_before": 0.5, "threshold": 0.7}
    write_calibration(found, np.linspace(0, 1, 20), out / "calibration.html")
    episodes = [JudgedEpisode(torch.tensor([n > 2]), torch.tensor([n / 6])) for n in range(6)]
    both = dict.fromkeys(("learned", "goal_image"), judge_report(episodes, 0.5))
    write_judge({"data": "d", "test": "t", "real": both, "dreamed": both}, episodes, 0.5, out / "judge.html")
    actions = np.random.default_rng(0).normal(size=(50, 7))
    write_clone(actions, actions, {"demonstrations": 3, "data": "demos" + "x" * 80}, out / "clone.html")
    (out / "losses.csv").write_text("step,loss\n0,2.0\n1,1.0\n2,0.5\n")
    write_training(out, [{"step": 2, "validation/psnr_1": 30.0, "validation/copy_psnr_1": 20.0}])
    (out / "report.html").rename(out / "training.html")
    return out


def test_every_page_can_be_read_everywhere(pages):
    """Nothing sticks out, axe-core finds nothing serious, the console is silent, films play, headings are in order."""
    with browser() as chromium:
        for scheme, width, other in (("light", 1440, 390), ("dark", 390, 1440)):
            page = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 844}).new_page()
            mistakes = []
            page.on("console", lambda said, to=mistakes: to.append(said.text))
            page.on("pageerror", lambda error, to=mistakes: to.append(str(error)))
            for name in NAMES:
                page.set_viewport_size({"width": width, "height": 844})
                page.goto((pages / f"{name}.html").as_uri())
                where = f"{name}, {scheme}, {width}"
                assert serious_violations(page) == [], where
                levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((e) => Number(e.tagName[1]))")
                assert levels[0] == 1 and set(levels[1:]) == {2}, where
                if page.locator("video").count():
                    page.wait_for_function("document.querySelector('video').videoWidth > 0")
                for size in (width, other):
                    page.set_viewport_size({"width": size, "height": 844})
                    assert page.evaluate("document.documentElement.scrollWidth") <= size, f"{where}, now {size}"
            ink = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (ink == "rgb(255, 255, 255)") == (scheme == "light")
            assert mistakes == []
