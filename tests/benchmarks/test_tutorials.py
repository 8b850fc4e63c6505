"""The runner of the tutorials: what it finds on a page, what it runs, and what it refuses."""

import json
import runpy

import pytest
from places import BENCHMARKS

TUTORIALS = runpy.run_path(str(BENCHMARKS / "tutorials.py"))
blocks, cells, run_all, PageRun = (TUTORIALS[name] for name in ("blocks", "cells", "run_all", "PageRun"))

PAGE = """\
# A page

<!-- tiny
--episodes 100 => --episodes 4
steps => hops
-->
```sh
echo --episodes 100 steps
```

and what you see:

```text
episodes 100
```

*Not run in our tests: it downloads 1 GB.*
<!-- instead: touch data -->
```bash
hf download everything
```

<!-- background until: ready -->
```sh
echo ready
```

```python
number = 3
```
"""


def page(folder, text):
    file = folder / "page.md"
    file.write_text(text)
    return file


def test_blocks_are_found_with_the_notes_in_front_of_them(tmp_path):
    found = blocks(page(tmp_path, PAGE))
    assert [each.language for each in found] == ["sh", "text", "bash", "sh", "python"]
    assert [each.where for each in found] == [f"page.md:{line}" for line in (7, 13, 19, 24, 28)]
    assert found[0].tiny == (("--episodes 100", "--episodes 4"), ("steps", "hops"))
    assert (found[2].not_run, found[2].instead) == ("it downloads 1 GB.", "touch data")
    assert [each.background for each in found] == ["", "", "", "ready", ""]
    assert found[1].tiny == found[3].tiny == ()  # a note belongs to the block after it alone


def test_tiny_settings_are_run_in_place_of_those_shown(tmp_path):
    shown, output, excused, *_ = blocks(page(tmp_path, PAGE))
    assert shown.source() == "echo --episodes 4 hops\n"
    assert shown.source(real=True) == "echo --episodes 100 steps\n"
    assert output.source() == ""
    assert excused.source() == "touch data"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```\nls\n```\n", "page.md:1: a block of 'no language' is neither run nor excused"),
        ("```console\nls\n```\n", "page.md:1: a block of 'console' is neither run nor excused"),
        ("```text\nworldmodel info data\n```\n", "page.md:1: output that looks like a command: 'worldmodel info d'"),
        ("```text\nfound\n$ ls\n```\n", "output that looks like a command"),
        ("<!-- tiny\n--steps 9 => --steps 2\n-->\n```sh\nls\n```\n", "page.md:4: a tiny setting replaces '--steps 9'"),
        ("```sh\nls\n```\n```sh\nls\n", "page.md: 3 lines begin with ``` or ~~~, 2 begin or end a block"),
        ("~~~sh\nls\n~~~\n", "page.md: 2 lines begin with ``` or ~~~, 0 begin or end a block"),
        ("<!-- tinny\nls => ls -l\n-->\n```sh\nls\n```\n", "page.md:4: a note in front of the block is not understood"),
        ("<!-- instead: ls -->\n```sh\nrm\n```\n", "the page does not say why"),
        ("<!-- tiny\n--steps 9\n-->\n```sh\nls\n```\n", "a tiny setting is a line SHOWN => RUN, got '--steps 9'"),
    ],
)
def test_a_block_that_is_neither_run_nor_excused_is_a_fault(tmp_path, capsys, text, said):
    failed = run_all([page(tmp_path, text)], tmp_path / "out", real=False)
    assert len(failed) == 1
    assert said in failed[0]


def test_blocks_run_in_order_and_a_page_ends_at_its_first_failure(tmp_path, capsys):
    text = "```sh\necho 3 > a\n```\n```python\n# on_page.py\nX = 4\n```\n```python\nfrom on_page import X\ny = X\n```\n"
    text += "```python\nassert y == int(open('a').read())\n```\n```sh\ntouch never\n```\n"
    assert run_all([page(tmp_path, text)], tmp_path / "out", real=False) == ["page.md:12"]
    assert "AssertionError" in capsys.readouterr().out
    assert not (tmp_path / "out" / "page.md" / "never").exists()


def test_the_first_command_that_fails_ends_a_block(tmp_path, capsys):
    assert run_all([page(tmp_path, "```sh\nfalse\ntouch b\n```\n")], tmp_path / "out", real=False) == ["page.md:1"]
    assert not (tmp_path / "out" / "page.md" / "b").exists()


def test_a_server_runs_until_the_page_is_done(tmp_path, capsys):
    serve = "<!-- background until: ready -->\n```sh\nsh -c 'echo ready; touch up; exec sleep 60'\n```\n"
    text = serve + "```python\nimport os, time\nwhile not os.path.exists('up'):\n    time.sleep(0.01)\n```\n"
    run = PageRun(tmp_path)
    for block in blocks(page(tmp_path, text)):
        assert run.run(block, block.source()) == ""
    (server,) = run.servers
    assert server.poll() is None
    run.close()
    assert server.poll() is not None


def test_a_server_that_ends_before_its_output_is_a_failure(tmp_path):
    (block,) = blocks(page(tmp_path, "<!-- background until: ready -->\n```sh\necho no\n```\n"))
    assert "the output 'ready' did not come" in PageRun(tmp_path).run(block, block.source())


def test_cells_of_a_notebook_carry_their_notes(tmp_path):
    code = {"cell_type": "code", "source": ["STEPS = 900\n", "STEPS"], "metadata": {"tiny": ["900 => 2"]}}
    excused = {"cell_type": "code", "source": "wait()", "metadata": {"not_run": "it waits for you"}}
    file = tmp_path / "book.ipynb"
    file.write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": "Hello"}, code, excused]}))
    first, second = cells(file)
    assert (first.where, first.source(), first.source(real=True)) == (
        "book.ipynb, cell 1",
        "STEPS = 2\nSTEPS",
        "STEPS = 900\nSTEPS",
    )
    assert second.source() == ""


def test_a_page_with_a_fault_is_not_begun(tmp_path, capsys):
    run_all([page(tmp_path, "```sh\ntouch begun\n```\n```\nls\n```\n")], tmp_path / "out", real=False)
    assert not (tmp_path / "out" / "page.md" / "begun").exists()


def test_a_folder_that_is_there_is_kept(tmp_path, capsys):
    (tmp_path / "out" / "page.md").mkdir(parents=True)
    (failed,) = run_all([page(tmp_path, "```sh\nls\n```\n")], tmp_path / "out", real=False)
    assert failed.endswith("is there already; choose another --out")


def test_tutorials_are_chosen_by_name():
    with pytest.raises(ValueError, match=r"no tutorial is called \['nowhere'\]"):
        TUTORIALS["tutorials"](("nowhere",))


@pytest.mark.parametrize(("failed", "status", "said"), [([], 0, "nothing failed"), (["a.md:1"], 1, "failed: a.md:1")])
def test_the_exit_status_says_whether_something_failed(tmp_path, capsys, monkeypatch, failed, status, said):
    main = TUTORIALS["main"]
    for name in ("PATH", "PYTHONPATH", "OMP_NUM_THREADS", "MPLBACKEND"):
        monkeypatch.setenv(name, "")
    monkeypatch.setitem(main.__globals__, "run_all", lambda pages, folder, *, real: failed)
    monkeypatch.setitem(main.__globals__, "tutorials", lambda names: [])
    assert main(TUTORIALS["TutorialsConfig"](out=tmp_path)) == status
    assert capsys.readouterr().out.strip().endswith(said)
