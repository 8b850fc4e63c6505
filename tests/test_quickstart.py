"""The quickstart from end to end, with everything small."""

import base64
import json
import re
from dataclasses import replace

import av
import pytest

from demos.quickstart import STAGES, QuickstartConfig, quickstart

TINY = {"episodes": 3, "held_out": 2, "train_steps": 2, "horizon": 5, "videos": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two runs: one from nothing, one that continues from the world model of the first."""
    folder = tmp_path_factory.mktemp("quickstart")
    first = QuickstartConfig(out=folder / "first", checkpoint=folder / "none", **TINY)
    quickstart(first)
    second = replace(first, out=folder / "second", checkpoint=first.world, install_seconds=12.0)
    quickstart(second)
    return first, second


@pytest.mark.slow
def test_it_writes_what_it_measured(finished):
    first, second = (json.loads((c.out / "fidelity.json").read_text()) for c in finished)
    for report in (first, second):
        assert set(report["cameras"]) == {"top", "wrist"}
        assert set(report["cameras"]["top"]["psnr"]) == {"1", "5"}
        assert report["copy_last"]["top"]["psnr"]["5"] > 10
        assert report["metadata"]["trained_on"] == []
    assert first["before"] is None
    assert second["before"]["cameras"] == first["cameras"]


@pytest.mark.slow
def test_timings_name_every_stage_and_the_machine(finished):
    first, second = (json.loads((c.out / "timings.json").read_text()) for c in finished)
    names = [stage.__name__.removesuffix("_stage") for stage, _ in STAGES]
    assert [entry["stage"] for entry in first["stages"]] == names
    assert [entry["stage"] for entry in second["stages"]] == ["install", *names]
    assert second["total_seconds"] > 12
    assert first["machine"]["cores"] >= 1


@pytest.mark.slow
def test_the_page_stands_alone_and_says_where_it_started(finished):
    first, second = ((config.out / "report.html").read_text() for config in finished)
    assert "trained from nothing" in first
    assert "continued for" in second
    for page in (first, second):
        assert not re.search(r'(src|href)="(?!data:)', page)
        assert page.count("data:image/png;base64,") == 3
    encoded = re.search(r'data:video/mp4;base64,([^"]+)"', first).group(1)
    file = finished[0].out / "copy.mp4"
    file.write_bytes(base64.b64decode(encoded))
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert len(frames) == 5
    assert frames[0].shape == (2 * (256 + 20), 2 * 256, 3)
