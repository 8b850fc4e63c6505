"""Films of trials run as fast as the world model's frames follow each other."""

import av
import numpy as np
from tiny import tiny_world

from policy_eval.ranking.disagreements import write_film


def test_a_stride_makes_a_film_slower(tmp_path):
    frames = np.zeros((3, 32, 32, 3), np.uint8)
    write_film(tmp_path / "film.mp4", frames, tiny_world(stride=2))
    with av.open(str(tmp_path / "film.mp4")) as container:
        assert container.streams.video[0].average_rate == 5, "10 recorded frames/s, every second one dreamed"
