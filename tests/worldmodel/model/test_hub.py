"""Models are pushed with the real client to a stand-in for the hub, and loaded from it again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from drawn_episodes import DrawnEpisodes
from hub_server import READER, running_hub, take_for_the_hub
from tiny import random_clip, tiny_world

from policy_eval.judge.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from policy_eval.judge.judge import JudgeShape, LearnedJudge
from policy_eval.policies.cloned import ClonedPolicy, PolicyConfig
from worldmodel.cli import main
from worldmodel.model.card import CardFacts
from worldmodel.model.folder import fingerprint
from worldmodel.model.hub import PushConfig, push, refusal, repository, without_paths
from worldmodel.training.build import note_training
from worldmodel.world_model import WorldModel

LOOKS = {"views": ("top",), "size": (16, 16)}
MODELS = {
    "world.json": (lambda: tiny_world(), WorldModel),
    "policy.json": (lambda: ClonedPolicy(PolicyConfig(**LOOKS, action_dim=2, state_dim=2)), ClonedPolicy),
    "judge.json": (lambda: LearnedJudge(JudgeShape(**LOOKS)), LearnedJudge),
    "config.json": (lambda: InverseDynamics(InverseDynamicsConfig(**LOOKS, action_dim=2)), InverseDynamics),
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The stand-in, which the client takes for the hub; it has a cache of its own and the token of a writer."""
    with running_hub() as hub:
        take_for_the_hub(hub, monkeypatch, tmp_path / "cache")
        yield hub


@pytest.mark.parametrize("file", MODELS)
def test_what_is_pushed_is_loaded_bit_for_bit(file, hub, tmp_path):
    make, kind = MODELS[file]
    model = make()
    model.save(tmp_path / "saved")
    address = model.push_to_hub("me/a-model", facts=CardFacts(license="apache-2.0", datasets=("hf://me/set",)))
    assert address.startswith(f"{hub.url}/me/a-model/commit/")
    assert set(hub.repos["me/a-model"]) == {file, "weights.safetensors", "README.md"} and hub.private["me/a-model"]
    for name in (file, "weights.safetensors"):
        assert hub.repos["me/a-model"][name] == (tmp_path / "saved" / name).read_bytes()
    card = hub.repos["me/a-model"]["README.md"].decode()
    head = "---\ndatasets:\n- me/set\nlibrary_name: worldmodel\nlicense: apache-2.0\npipeline_tag: robotics\n"
    assert card.startswith(head)
    assert f'{kind.__name__}.load("hf://me/a-model")' in card
    fetched, kept = kind.load("hf://me/a-model"), kind.load(tmp_path / "saved")
    weights, expected = (getattr(each, "network", each).state_dict() for each in (fetched, kept))
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


def test_a_world_from_the_hub_dreams_the_same(hub):
    world = tiny_world()
    world.push_to_hub("me/world", private=False)
    assert not hub.private["me/world"]
    clip = random_clip(world)
    context, actions = clip.head(3), clip.actions[:, 2:]
    first, second = (each.rollout(context, actions) for each in (world, WorldModel.load("hf://me/world")))
    assert torch.equal(first.frames, second.frames) and torch.equal(first.states, second.states)


def test_the_command_pushes_the_model_and_its_reports_and_nothing_else(hub, tmp_path, capsys):
    folder = tmp_path / "runs" / "world"
    world = tiny_world()
    source = DrawnEpisodes([3, 3])
    for source.name in ("hf://me/episodes", f"{tmp_path}/mine"):
        note_training(world, source, [0, 1])
    world.save(folder)
    (folder / "state").mkdir()
    (folder / "state" / "state.safetensors").write_bytes(b"secret")
    (folder / "notes.txt").write_text("secret")
    (folder / "weights.bin").write_bytes(b"pickled")
    ranking = {"policies": [], "agreement": None, "made_with": {"dream": {"world": fingerprint(folder)}}}
    (folder / "ranking.json").write_text(json.dumps(ranking | {"settings": {"data": f"{tmp_path}/data"}}))
    assert main(["push", str(folder), "hf://me/world", "--license", "mit", "--no-private"]) == 0
    files = hub.repos["me/world"]
    assert set(files) == {"world.json", "weights.safetensors", "ranking.json", "README.md"}
    assert json.loads(files["ranking.json"])["settings"] == {"data": "data"}
    card = files["README.md"].decode()
    assert "datasets:\n- me/episodes\n" in card
    assert "2 episodes of `hf://me/episodes`. 2 episodes of `mine`." in card
    assert "load it by hf://me/world" in capsys.readouterr().out
    assert not any(str(tmp_path) in text.decode(errors="ignore") for text in files.values())
    before = dict(files)
    assert main(["push", str(folder), "hf://me/world", "--license", "mit"]) == 0
    assert hub.repos["me/world"] == before and not hub.private["me/world"], "what exists stays public"


def test_a_dry_run_asks_no_hub(hub, tmp_path, capsys):
    tiny_world().save(tmp_path / "world")
    assert push(PushConfig(tmp_path / "world", "me/world", dry_run=True)) == ""
    said = capsys.readouterr().out
    assert said.startswith("---\nlibrary_name: worldmodel") and "would upload world.json, weights.safetensors" in said
    assert hub.asked == []


def refused(config: PushConfig, token: str | None = None) -> str:
    with pytest.raises(ValueError) as caught:
        push(config, token)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_the_hub_refuses_is_one_line(hub, tmp_path, monkeypatch):
    tiny_world().save(tmp_path / "world")
    config = PushConfig(tmp_path / "world", "hf://me/world")
    assert refused(config, "hf_nobody").startswith(
        "hf://me/world: cannot be pushed: the hub does not know you: log in with `hf auth login`, or set HF_TOKEN (Inv"
    )
    assert "cannot be pushed: you have no right to write there: check the user's name" in refused(config, READER)
    assert hub.repos == {}
    with pytest.raises(ValueError, match=r"^hf://me/none: cannot be fetched from the hub: ") as caught:
        WorldModel.load("hf://me/none")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert refused(config).startswith("hf://me/world: cannot be pushed: ")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "offline mode is enabled" in refused(config)


def test_a_folder_that_is_no_whole_model_is_refused(tmp_path):
    folder = tmp_path / "world"
    tiny_world().save(folder)
    good = PushConfig(folder, "me/world", dry_run=True)
    assert refused(replace(good, to="hf://me/world@v1")).endswith("@v1: expected hf://USER/NAME, without a revision")
    assert "world: expected hf://USER/NAME" in refused(replace(good, to="world"))
    assert "episodes: expected hf://USER/NAME" in refused(replace(good, facts=CardFacts(datasets=("episodes",))))
    said = "--license Apache 2: the hub names licences in small letters"
    assert refused(replace(good, facts=CardFacts(license="Apache 2"))).startswith(said)
    (folder / "weights.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0")
    assert "weights.safetensors: a Git LFS pointer" in refused(good)
    (folder / "weights.safetensors").unlink()
    assert "weights.safetensors: missing" in refused(good)
    (folder / "judge.json").write_text("{}")
    assert f"{folder}: a folder of one model is pushed, there are world.json and judge.json" in refused(good)
    (folder / "world.json").unlink()
    assert "judge.json: the field 'format' is missing" in refused(good)
    (folder / "judge.json").unlink()
    assert "none of world.json, policy.json, judge.json, config.json is there" in refused(good)


def test_a_ranking_of_another_model_is_refused(tmp_path):
    tiny_world().save(tmp_path / "world")
    file = tmp_path / "ranking.json"
    config = PushConfig(tmp_path / "world", "me/world", dry_run=True, facts=CardFacts(ranking=file))
    file.write_text(json.dumps({"made_with": {"dream": {"world": "another"}}}))
    assert "the ranking was made with the world another, this one is " in refused(config)
    file.write_text(json.dumps({"made_with": {"dream": {"world": fingerprint(tmp_path / "world")}}}))
    assert refused(config).startswith(f"{file}: this is not a ranking report, no card can be written from it: KeyError")


def test_a_card_of_ones_own_is_used_as_it_is(tmp_path, capsys):
    folder = tmp_path / "world"
    tiny_world().save(folder)
    config = PushConfig(folder, "me/world", dry_run=True, facts=CardFacts(license="mit"))
    (folder / "README.md").write_text("# Mine\n")
    push(config)
    assert "license: mit\n" in (said := capsys.readouterr().out) and "---\n\n# Mine\n" in said and "## Use" not in said
    (folder / "README.md").write_text("---\nlicense: other\n---\n# Mine\n")
    push(replace(config, facts=CardFacts()))
    assert capsys.readouterr().out.startswith("---\nlicense: other\n---\n# Mine\n")
    assert "README.md is the card as it stands, so --license has no use" in refused(config)
    assert "so --data has no use" in refused(replace(config, facts=CardFacts(data="mine")))


def test_paths_are_cut_to_their_last_part():
    report = {"data": "/disk/me/data", "on": ["C:\\Users\\me\\set", "runs/world", 3, None], "text": "and/or"}
    assert without_paths(report) == {"data": "data", "on": ["set", "runs/world", 3, None], "text": "and/or"}
    several = "(PosixPath('/disk/me/a'), '/disk/me/b', 'c/d') of https://a.org/b/c and ~/d/e"
    assert without_paths(several) == "(PosixPath('a'), 'b', 'c/d') of https://a.org/b/c and ~/d/e"
    assert repository("hf://me/a.b-c") == repository("me/a.b-c") == "me/a.b-c"
    assert refusal(OSError()) == "OSError"
    assert Path("README.md").name == without_paths(str(Path("README.md").absolute()))
