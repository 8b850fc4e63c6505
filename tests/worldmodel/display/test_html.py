"""A page is one file, names what it holds, and says how large it is."""

import re

from worldmodel.display.html import Report, megabytes
from worldmodel.display.plots import Row, draw_intervals


def test_everything_is_inside_and_escaped(tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"film" * 300_000)
    page = Report("a <title>")
    page.meaning(["It is <better>."])
    page.heading("Figures")
    page.table(("name", "value"), [("a & b", "1")])
    page.facts({"seed": 3})
    page.plots({"one": draw_intervals({"dream": [Row("a", 0.5, 0.4, 0.6)]}, "score")})
    page.video(tmp_path / "film.mp4", "truth above")
    page.write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">') and 'name="viewport"' in text
    assert "color-scheme: light dark" in text and "prefers-color-scheme: dark" in text
    assert "<h1>a &lt;title&gt;</h1>" in text and "<p>It is &lt;better&gt;.</p>" in text
    assert text.index("What this means") < text.index("<h2>Figures</h2>")
    assert '<th scope="row">a &amp; b</th><td>1</td>' in text and '<th scope="row">seed</th><td>3</td>' in text
    assert text.count('<div class="scroll" role="region"') == 2
    assert 'alt="one"' in text and 'aria-label="truth above"' in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    said = float(re.search(r"one file of (.+) MB", text)[1])
    assert abs(said - len(text) / 1e6) < 0.05


def test_no_sentences_no_box():
    page = Report("x")
    page.meaning([])
    assert page.parts == []


def test_sizes_in_words():
    assert (megabytes(10), megabytes(1_260_000)) == ("0.1 MB", "1.3 MB")
