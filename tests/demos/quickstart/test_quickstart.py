"""The quickstart from end to end, with everything small."""

import base64
import json
import re

import av
import pytest
from fresh_python import worldmodel

TINY = ("--episodes", "3", "--held-out-episodes", "2", "--train-steps", "2", "--horizon", "5")
TINY += ("--policy", "none", "--judge", "none", "--policies", "none")
STAGES = ["record", "train", "dream", "measure", "posttrain", "rank", "improve"]


def run(out, checkpoint, *options):
    done = worldmodel("quickstart", "--out", out, "--world", checkpoint, "--videos", "1", *TINY, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two runs: one from nothing, one that continues from the world model of the first."""
    folder = tmp_path_factory.mktemp("quickstart")
    first = run(folder / "first", folder / "none")
    return first, run(folder / "second", first / "world", "--install-seconds", "12")


@pytest.mark.slow
def test_it_writes_what_it_measured(folders):
    first, second = (json.loads((folder / "fidelity.json").read_text()) for folder in folders)
    for report in (first, second):
        assert set(report["cameras"]) == {"top", "wrist"}
        assert set(report["cameras"]["top"]["psnr"]) == {"1", "5"}
        assert report["copy_last"]["top"]["psnr"]["5"] > 10
        assert report["metadata"]["trained_on"] == []
    assert first["before"] is None
    assert second["before"]["cameras"] == first["cameras"]


@pytest.mark.slow
def test_timings_name_every_stage_and_the_machine(folders):
    first, second = (json.loads((folder / "timings.json").read_text()) for folder in folders)
    assert [entry["stage"] for entry in first["stages"]] == STAGES
    assert [entry["stage"] for entry in second["stages"]] == ["install", *STAGES]
    assert second["total_seconds"] > 12
    assert first["machine"]["cores"] >= 1


@pytest.mark.slow
def test_the_page_stands_alone_and_says_where_it_started(folders):
    first, second = ((folder / "report.html").read_text() for folder in folders)
    assert "trained from nothing" in first
    assert "continued for" in second
    assert "because there is nothing at none and none" in first
    assert "No policies were ranked, because there is no judge at none." in first
    for page in (first, second):
        assert not re.search(r'(src|href)="(?!data:)', page)
        assert page.count("data:image/png;base64,") == 4
        assert page.count('class="meaning"') == 2  # fidelity and post-training; nothing to rank, nobody to improve
    encoded = re.search(r'data:video/mp4;base64,([^"]+)"', first).group(1)
    file = folders[0] / "copy.mp4"
    file.write_bytes(base64.b64decode(encoded))
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert len(frames) == 5
    assert frames[0].shape == (2 * (256 + 20), 2 * 256, 3)
