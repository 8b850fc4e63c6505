"""Every published figure has a command, and the pages show what is stored."""

import json
import re
import shlex
import sys

import pytest
from places import BENCHMARKS, ROOT

from worldmodel.cli import COMMANDS

sys.path.insert(0, str(BENCHMARKS))
from figure_machine import missing, processor
from figure_pages import BLOCK, INDEX, Result, anchor, filled_page, read_results
from figures import FiguresConfig, main, read_figures, tables_of
from reports import bench_tables, fidelity_table, shift_table

FIGURES, RECORDINGS = read_figures(ROOT)
RESULTS = read_results(BENCHMARKS / "results", FIGURES)
PAGES = {page.stem: page.read_text() for page in sorted((ROOT / "docs" / "figures").glob("*.md"))}
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?!\w|\.\d)")
LINK = re.compile(r"\]\(docs/figures/(?P<page>[\w-]+)\.md#(?P<anchor>[\w-]+)\)")


def blocks(text: str) -> dict[str, str]:
    return {found["name"]: found["text"] for found in BLOCK.finditer(text)}


def commands() -> dict[str, str]:
    """All command lines of the list by what they are for."""
    lines = {f"{name} {i}": each for name, f in FIGURES.items() for i, each in enumerate((*f.command, *f.quick))}
    made = {f"data {name} {kind}": getattr(each, kind) for name, each in RECORDINGS.items() for kind in vars(each)}
    return {name: line for name, line in (lines | made).items() if line}


@pytest.mark.parametrize("line", commands().values(), ids=commands().keys())
def test_every_command_has_a_script_with_its_options(line):
    first, second, *rest = shlex.split(line)
    if first == "worldmodel":
        assert second in COMMANDS
        return
    assert first == "python"
    text = "".join(file.read_text() for file in BENCHMARKS.glob(f"{ROOT.joinpath(second).stem}*.py"))
    options = [word[2:].split(".")[0] for word in rest if word.startswith("--")]
    unknown = [o for o in options if not re.search(rf"^    {o.replace('-', '_')}: |\"--{o}\"", text, re.MULTILINE)]
    assert (ROOT / second).is_file() and unknown == []


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_says_what_it_is_compared_with_and_has_its_place(name):
    figure = FIGURES[name]
    assert figure.baseline and figure.aim and figure.interval and figure.minutes > 0
    missing(figure.needs)  # every need is known
    used = set(re.findall(r"\{data\}/([\w-]+)", " ".join((*figure.command, *figure.quick))))
    assert used <= set(figure.data)
    before, _, _ = PAGES[figure.page].partition(f"<!-- figure: {name} -->")
    assert re.findall(r"^## (.+)$", before, re.MULTILINE)[-1] == figure.title
    assert sum(name in blocks(text) for text in PAGES.values()) == 1


def test_the_quick_run_is_short():
    assert sum(figure.quick_minutes for figure in FIGURES.values() if figure.quick) <= 60
    assert sum(bool(figure.quick) for figure in FIGURES.values()) >= 25


@pytest.mark.parametrize("page", PAGES)
def test_every_table_and_plot_stands_between_markers_and_is_what_is_stored(page):
    text = PAGES[page]
    by_hand = BLOCK.sub("", text)
    assert not re.search(r"^\||!\[|<img|<!--", by_hand, re.MULTILINE)
    assert filled_page(text, FIGURES, RESULTS) == text, "run python benchmarks/figures.py --render"


def test_results_belong_to_figures_and_plots_are_there():
    assert {file.stem for file in (BENCHMARKS / "results").glob("*.json")} == set(RESULTS)
    for name, result in RESULTS.items():
        assert result.table and result.command and re.fullmatch(r"\d{4}-\d\d-\d\d", result.date)
        assert result.revision or result.note, f"{name}: no commit, and no note that says why"
        picture = FIGURES[name].picture
        assert picture is None or (ROOT / "docs" / "images" / picture).is_file()


def wrong_rows(readme: str, pages: dict[str, str]) -> list[str]:
    """Rows of the table under `## Figures` whose numbers do not stand in the section that the first cell links to."""
    section = readme.partition("\n## Figures\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| ")][1:]
    wrong = []
    for first, *cells in rows:
        found = LINK.search(first)
        if found is None:
            wrong.append(f"{first.strip()}: no link to its figure")
            continue
        parts = re.split(r"^## (.+)$", pages.get(found["page"], ""), flags=re.MULTILINE)
        bodies = {anchor(head): body for head, body in zip(parts[1::2], parts[2::2], strict=True)}
        rendered = " ".join(blocks(bodies.get(found["anchor"], "")).values())
        numbers = {number.replace(",", "") for number in NUMBER.findall(rendered)}
        lost = [n for n in NUMBER.findall(" ".join(cells)) if n.replace(",", "") not in numbers]
        if lost or not numbers:
            wrong.append(f"{found['page']}#{found['anchor']}: {lost}")
    return wrong


def test_the_figures_of_the_readme_stand_on_their_pages():
    readme = (ROOT / "README.md").read_text()
    assert "](docs/figures/" not in readme or wrong_rows(readme, PAGES) == []


def test_a_figure_of_the_readme_that_is_not_on_its_page_is_found():
    page = "# P\n\n## The dream\n<!-- figure: a -->\n| 35.2 [34.4, 35.9] | 10,000 |\n<!-- end: a -->\n"
    head = "x\n\n## Figures\n\n| what | figure | baseline |\n|---|---|---|\n"
    table = head + "| [Dream](docs/figures/p.md#the-dream) | {} | {} |\n"
    assert wrong_rows(table.format("35.2 dB", "[34.4, 35.9] of 10000"), {"p": page}) == []
    assert wrong_rows(table.format("35.3 dB", "5.9"), {"p": page}) == ["p#the-dream: ['35.3', '5.9']"]
    assert wrong_rows(table.format("35.2 dB", "").replace("#the-dream", "#a-dream"), {"p": page}) != []
    assert wrong_rows(head + "| Dream | 35.2 | |\n", {"p": page}) == ["Dream: no link to its figure"]


def test_anchors_are_those_of_github():
    assert anchor("One, two or four denoising steps") == "one-two-or-four-denoising-steps"
    assert anchor("push-v3, three seeds") == "push-v3-three-seeds"


def test_tables_are_kept_with_the_heading_above_them():
    said = "12 s left\n# Bars\n\ntext\n\n| a | b |\n|---|---|\n| 1 | 2 |\nloss 3\n\n| c |\n|---|\n| 4 |\n"
    assert tables_of(said) == ["**Bars**", "", "| a | b |", "|---|---|", "| 1 | 2 |", "", "| c |", "|---|", "| 4 |"]
    assert tables_of("nothing") == []


LIST = """
[data.drawn]
command = "python script.py --write {data}/drawn"

[figures.good]
title = "The good one"
page = "page"
data = ["drawn"]
command = ["python script.py", "python script.py --picture {out}"]
quick = "python script.py --small"
minutes = 2
picture = "plot.png"
baseline = "b"
interval = "i"
aim = "a"

[figures.bad]
title = "The bad one"
page = "page"
command = "python script.py --fail"
quick = "python script.py --fail"
minutes = 1
baseline = "b"
interval = "i"
aim = "a"

[data.bought]

[figures.far]
title = "The far one"
page = "page"
command = "python script.py {data}/bought"
minutes = 1
needs = ["gpu"]
data = ["bought"]
baseline = "b"
interval = "i"
aim = "a"
"""
SCRIPT = """
import pathlib, sys
if "--fail" in sys.argv: sys.exit("no such luck")
if "--write" in sys.argv: pathlib.Path(sys.argv[-1]).mkdir(parents=True)
if "--picture" in sys.argv:
    folder = pathlib.Path(sys.argv[-1])
    folder.mkdir(parents=True)
    (folder / "plot.png").write_bytes(b"a plot")
size = 1 if "--small" in sys.argv else 2
print("## Sizes"); print(); print("| size |"); print("|---|"); print(f"| {size} |")
"""


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A list of three figures, of which one fails and one needs a GPU and a data set, and their page."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "docs" / "figures").mkdir(parents=True)
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "benchmarks" / "figures.toml").write_text(LIST)
    names = ("index", "good", "bad", "far")
    page = "".join(f"<!-- figure: {name} -->\n<!-- end: {name} -->\n" for name in names)
    (tmp_path / "docs" / "figures" / "page.md").write_text(page)
    return tmp_path


def test_a_failed_command_is_named_and_the_others_go_on(tree, capsys):
    assert main(FiguresConfig(root=tree)) == 1
    said = capsys.readouterr().out
    assert (
        "1 of 3 figures made" in said
        and "left out: far: it needs gpu, data in data/bought, which no command records" in said
    )
    assert "failed: bad: status 1 of `python script.py --fail`; see runs/figures/logs/bad.log" in said
    assert not (tree / "data/bought").exists() and "no such luck" in (tree / "runs/figures/logs/bad.log").read_text()
    stored = json.loads((tree / "benchmarks/results/good.json").read_text())
    recorded = "python script.py --write data/drawn"
    assert stored["command"] == [recorded, "python script.py", "python script.py --picture runs/figures/good"]
    assert stored["table"][-1] == "| 2 |" and (tree / "docs/images/plot.png").read_bytes() == b"a plot"
    parts = blocks((tree / "docs/figures/page.md").read_text())
    assert "**Sizes**" in parts["good"] and "](../images/plot.png)" in parts["good"] and recorded in parts["good"]
    assert parts["bad"] == parts["far"] == "This figure has not been made.\n"
    assert "| page | [The good one](page.md#the-good-one) | `script.py` |" in parts[INDEX]


def test_tables_of_a_failed_command_are_kept_with_a_note(tree, capsys):
    late = SCRIPT.replace('if "--fail" in sys.argv: sys.exit("no such luck")\n', "")
    (tree / "script.py").write_text(late + "if '--fail' in sys.argv: sys.exit(1)\n")
    assert main(FiguresConfig(root=tree, only=("bad",))) == 1
    assert "failed: bad: status 1" in capsys.readouterr().out
    stored = json.loads((tree / "benchmarks/results/bad.json").read_text())
    assert stored["table"][-1] == "| 2 |" and stored["note"].startswith("The command ended with an error")
    assert "- **Note:** The command ended with an error" in (tree / "docs/figures/page.md").read_text()


def test_a_quick_run_leaves_what_is_published(tree, capsys):
    (tree / "benchmarks" / "results").mkdir()
    before = {file: file.read_bytes() for file in tree.rglob("*") if file.is_file()}
    text = LIST.replace('picture = "plot.png"\n', "")
    (tree / "benchmarks/figures.toml").write_text(text)
    assert main(FiguresConfig(root=tree, quick=True, only=("good",))) == 0
    after = {file: file.read_bytes() for file in before}
    assert {f for f in before if before[f] != after[f]} == {tree / "benchmarks/figures.toml"}
    assert not (tree / "data").exists() and not (tree / "benchmarks/results/good.json").exists()
    assert "| 1 |" in (tree / "runs/figures-quick/docs/figures/page.md").read_text()


def test_a_run_begins_anew_unless_it_goes_on(tree):
    kept = tree / "runs/figures/good/kept"
    kept.parent.mkdir(parents=True)
    kept.touch()
    (tree / "script.py").write_text(SCRIPT.replace("parents=True)\n    (", "parents=True, exist_ok=True)\n    ("))
    assert main(FiguresConfig(root=tree, only=("good",), resume=True)) == 0 and kept.exists()
    assert main(FiguresConfig(root=tree, only=("good",))) == 0 and not kept.exists()


def test_mistakes_in_the_list_are_one_line(tree, capsys):
    assert main(FiguresConfig(root=tree, only=("none",))) == 1
    assert "there is no figure 'none'; known are good, bad, far" in capsys.readouterr().err
    file = tree / "benchmarks" / "figures.toml"
    file.write_text(LIST.replace('data = ["drawn"]', 'data = ["painted"]'))
    with pytest.raises(
        ValueError, match=r"figures.toml: figure good needs the data set 'painted', listed are \['drawn', 'bought'\]"
    ):
        read_figures(tree)
    with pytest.raises(ValueError, match="need 'a moon': expected one of gpu, AMX"):
        missing(["a moon"])
    with pytest.raises(ValueError, match="marker 'new': no figure of this name"):
        filled_page("<!-- figure: new -->\n<!-- end: new -->\n", {}, {})


def test_a_need_is_the_best_that_the_processor_has():
    kinds = ("AMX", "AVX512-bf16", "AVX2")
    assert [kind for kind in kinds if not missing([kind])] == [processor()[1]] * bool(processor()[1])


def fidelity_report(dream: float) -> dict:
    metrics = {
        "psnr": {"1": dream, "10": dream - 9},
        "masked_psnr": {"1": None, "10": 7.0},
        "ssim": {"1": 0.5, "10": 0.4},
    }
    still = {"psnr": {"1": 20.0, "10": 10.0}, "masked_psnr": {"1": None, "10": 5.0}, "ssim": {"1": 0.5, "10": 0.3}}
    intervals = {"cameras": {"top": {"psnr": {"1": [dream - 1, dream + 1], "10": None}}}}
    about = {"horizons": [1, 10]}
    return {"cameras": {"top": metrics}, "copy_last": {"top": still}, "intervals": intervals, "metadata": about}


def test_a_report_of_fidelity_is_a_table_with_intervals_and_copying():
    lines = fidelity_table(fidelity_report(30.0)).splitlines()
    assert lines[2:5] == [
        "| top: PSNR, dB | 30.0 [29.0, 31.0] | 21.0 |",
        "| copying | 20.0 | 10.0 |",
        "| top: masked PSNR, dB | - | 7.0 |",
    ]


def test_a_report_of_shifts_has_the_gain_over_copying():
    report = fidelity_report(30.0) | {"shifted": {"camera": fidelity_report(26.0)}}
    rows = shift_table(report).splitlines()[2:]
    assert rows == [
        "| as trained on | 30.0 [29.0, 31.0] (20.0) | 21.0 (10.0) | 11.0 |",
        "| camera | 26.0 [25.0, 27.0] (20.0) | 17.0 (10.0) | 7.0 |",
    ]


def test_a_report_of_the_bench_has_all_its_parts():
    row = {"batch": 8, "num_steps": 2, "context": 8, "frames_per_second": 33.46, "roof_share": 0.514}
    report = {
        "grid": [row | {"latency_ms": {"median": 239.04, "p99": 250.0}}],
        "roof": {"gemm_flops_per_second": 97e9, "dtype": "torch.float32"},
        "long": {"seconds": [0.1] * 1000},
        "step_1000_over_step_20": 0.98,
        "recompute": [{"context": 32, "recomputed_over_cached": 10.04}],
        "processes": [{"workers": 2, "batch": 8, "frames_per_second": 60.7}],
        "training": None,
    }
    text = bench_tables(report)
    assert "| 8 | 2 | 8 | 33.5 | 239.0 | 250.0 | 51.4% |" in text and "97 GFLOP/s" in text
    assert "| step 1000 over step 20 | 0.98 |" in text and "32 frames of context again" in text
    assert "| 2 processes, batch 8 each, frames/s | 60.7 |" in text


def test_a_result_says_when_it_was_measured_and_on_what():
    listed = FIGURES["worlds"]
    result = Result(("python a.py",), "2026-11-28", "abc1234", "an abacus", 2.5, ("| 1 |",), "By hand.")
    text = filled_page("<!-- figure: worlds -->\n<!-- end: worlds -->\n", {"worlds": listed}, {"worlds": result})
    assert (
        "- **Measured:** 2026-11-28, commit `abc1234`, on an abacus. It took 2.5 minutes.\n- **Note:** By hand." in text
    )
    assert f"- **Baseline:** {listed.baseline}" in text and "```sh\npython a.py\n```" in text
