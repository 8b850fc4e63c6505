"""The page on serving: its code runs against real servers, its commands are read, and it names every message."""

import re
import shlex

import torch
import tyro
from places import ROOT
from run_page import run
from served import served

from policy_eval.policies.cloned import ClonedPolicy, PolicyConfig
from policy_eval.serving.command import ServeConfig
from policy_eval.serving.policy_host import PolicyHost
from worldmodel.wire.host import WorldHost
from worldmodel.wire.served import ServedWorld
from worldmodel.wire.server import Door, serving
from worldmodel.wire.sessions import Visitor

PAGE = ROOT / "docs" / "serving.md"
TEXT = PAGE.read_text()


def test_the_code_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    clone = ClonedPolicy(PolicyConfig(views=("top",), size=(16, 16), action_dim=2, state_dim=2)).eval()
    policy = serving(PolicyHost(clone, {"policy": "clone"}), Door("127.0.0.1", 0))
    with served() as world_url, policy as policy_url:
        page = tmp_path / "page.md"
        page.write_text(TEXT.replace("ws://127.0.0.1:8000", world_url).replace("ws://127.0.0.1:8001", policy_url))
        run(page)
    printed = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\[\S+ +\S+ *\]", printed[0])
    assert printed[1:] == ["(2,) ffd8", "clone", "[1, 2]"]


def test_the_commands_of_the_page_are_read():
    blocks = re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 2
    for line in "".join(blocks).strip().splitlines():
        program, command, *options = shlex.split(line)
        assert (program, command) == ("worldmodel", "serve")
        tyro.cli(ServeConfig, args=options)


def test_the_page_names_every_message_and_every_field_of_info():
    from served import small_world, starts

    house = ServedWorld(small_world(), starts(), None)
    messages = set(Visitor(house)._answers)
    assert set(re.findall(r"^\| `(\w+)` \| .* \| .* \|$", TEXT, re.MULTILINE)) >= messages
    assert [name for name in house.about() if name != "type" and f"`{name}`" not in TEXT] == []
    assert WorldHost(house).enter().hello()["protocol"] == 1
