"""The page of a training run, and its sentence in each case."""

import numpy as np
import pytest

from worldmodel.data.video.write import write_video
from worldmodel.display.training_page import meaning, write_training


def row(step, psnr, copied):
    measured = {"validation/psnr_5": 30.0, "validation/copy_psnr_5": 20.0}
    return {"step": step, **measured, "validation/psnr_20": psnr, "validation/copy_psnr_20": copied}


@pytest.mark.parametrize(
    ("psnr", "words"),
    [
        (25.0, "20 frames ahead, dreams of held-out episodes are closer to the truth than"),
        (15.0, "are not better than"),
    ],
)
def test_the_last_validation_decides_at_the_longest_horizon(psnr, words):
    (said,) = meaning([row(1, 40.0 - psnr, 20.0), row(2, psnr, 20.0)])
    assert words in said and f"PSNR {psnr:.1f} dB; the copy has 20.0 dB" in said


def test_nothing_to_validate_on():
    assert "nothing is known" in meaning([])[0] and "nothing is known" in meaning([{"step": 1}])[0]


def test_the_page(tmp_path):
    (tmp_path / "losses.csv").write_text("step,loss\n" + "".join(f"{n},{2 - n / 10}\n" for n in range(9)))
    for step in (1, 2):
        write_video(tmp_path / "validation" / f"{step:08d}.mp4", np.zeros((2, 16, 16, 3), np.uint8), 10)
    write_training(tmp_path, [row(1, 25.0, 20.0), row(2, 26.0, 20.0)])
    page = (tmp_path / "report.html").read_text()
    assert "closer to the truth" in page and "after 2 steps" in page and page.count("data:image/png") == 2
    write_training(tmp_path, [])
    assert (tmp_path / "report.html").read_text().count("data:image/png") == 1
