"""Model folders: found anywhere, read with one set of errors, fetched only when named so."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from places import ROOT
from safetensors.torch import load_file, save_file
from tiny import tiny_world

from policy_eval.judge.find import load_trained
from policy_eval.judge.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from policy_eval.judge.judge import JudgeShape, LearnedJudge
from policy_eval.policies.cloned import ClonedPolicy, PolicyConfig
from worldmodel import files
from worldmodel.files import shipped
from worldmodel.model import folder as model_folder
from worldmodel.model.folder import check_file, check_out, find_folder, find_model, find_optional
from worldmodel.world_model import WorldModel

LOOKS = {"views": ("top",), "size": (16, 16)}
MODELS = {
    "world.json": (lambda: tiny_world(), WorldModel.load),
    "policy.json": (lambda: ClonedPolicy(PolicyConfig(**LOOKS, action_dim=2, state_dim=2)), ClonedPolicy.load),
    "judge.json": (lambda: LearnedJudge(JudgeShape(**LOOKS)), LearnedJudge.load),
    "config.json": (lambda: InverseDynamics(InverseDynamicsConfig(**LOOKS, action_dim=2)), InverseDynamics.load),
}


@pytest.fixture(params=MODELS)
def saved(request, tmp_path):
    """Folder, description file and loader of a model of every kind."""
    make, load = MODELS[request.param]
    make().save(tmp_path / "model")
    return tmp_path / "model", request.param, load


def refusal(load, folder) -> str:
    with pytest.raises(ValueError) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message
    return message


def edit(file: Path, change) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def part_of(values: dict) -> dict:
    """The part of a description in which the sizes of the network stand."""
    return values["shape"] if "shape" in values else values["config"]


def test_a_wrong_description_is_named(saved):
    folder, name, load = saved
    file = folder / name
    good = file.read_text()
    changes = {
        f"{file}: format is 2, this version reads up to 1": lambda v: v.update(format=2),
        f"{file}: format is None, expected a whole number up to 1": lambda v: v.pop("format"),
        f"{file}: unknown field 'colour', known are": lambda v: v.update(colour="red"),
        "unknown field 'colour', known are views, size": lambda v: part_of(v).update(colour="red"),
        "the field 'views' is missing": lambda v: part_of(v).pop("views"),
        '.size is "big", expected tuple[int, int]': lambda v: part_of(v).update(size="big"),
        ".size is [16], expected tuple[int, int]": lambda v: part_of(v).update(size=[16]),
        ".size[1] is 16.5, expected int": lambda v: part_of(v).update(size=[16, 16.5]),
        ".views[0] is 3, expected str": lambda v: part_of(v).update(views=[3]),
    }
    for expected, change in changes.items():
        file.write_text(good)
        edit(file, change)
        assert expected in refusal(load, folder)
    file.write_text("{")
    assert f"{file}: not JSON: " in refusal(load, folder)
    file.write_text("[1]")
    assert f"{file}: holds [1], expected an object" in refusal(load, folder)


def test_wrong_weights_are_named(saved):
    folder, _, load = saved
    file = folder / "weights.safetensors"
    good = load_file(file)
    name = next(name for name in good if good[name].ndim == 2)
    shape = tuple(good[name].shape)
    save_file({**good, name: torch.zeros(1, 2)}, file)
    assert refusal(load, folder) == f"{file}: {name} is (1, 2), the model described beside it has {shape}"
    save_file({key: value for key, value in good.items() if key != name}, file)
    assert refusal(load, folder) == f"{file}: weights missing {name}, not expected none"
    save_file({**good, "more": torch.zeros(1)}, file)
    assert refusal(load, folder) == f"{file}: weights missing none, not expected more"
    file.write_bytes(b"not weights")
    assert f"{file}: not a safetensors file: " in refusal(load, folder)
    file.unlink()
    assert refusal(load, folder) == f"{file}: missing"


def test_a_folder_of_something_else_says_what_is_there(saved):
    folder, name, load = saved
    (folder / name).unlink()
    assert refusal(load, folder) == f"{folder}: {name} is missing, there is weights.safetensors"
    (folder / "weights.safetensors").unlink()
    assert refusal(load, folder) == f"{folder}: {name} is missing, there is nothing"


def test_a_saved_model_replaces_the_one_before(saved):
    folder, name, load = saved
    before = (folder / name).read_bytes(), (folder / "weights.safetensors").read_bytes()
    load(folder).save(folder, **({} if name in ("config.json", "world.json") else {"dtype": torch.bfloat16}))
    assert ((folder / name).read_bytes(), (folder / "weights.safetensors").read_bytes()) == before
    assert sorted(file.name for file in folder.iterdir()) == sorted([name, "weights.safetensors"])


@pytest.mark.parametrize("name", ["checkpoints/pusht", "checkpoints/metaworld-push"])
def test_shipped_worlds_load_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_model(name, "world.json") == ROOT / name
    assert WorldModel.load(name).config.views[0] in ("top", "scene")


def test_shipped_policies_and_judges_load():
    folders = [file.parent for file in (ROOT / "checkpoints").rglob("policy.json")]
    judges = [file.parent for file in (ROOT / "checkpoints").rglob("judge.json")]
    assert len(folders) > 20 and len(judges) > 4
    assert all(ClonedPolicy.load(folder).config.action_dim in (2, 4) for folder in folders[::7])
    assert all(0 < load_trained(folder).threshold < 1 for folder in judges)


def test_what_is_here_comes_before_what_ships(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints" / "pusht").mkdir(parents=True)
    assert shipped("checkpoints/pusht") == Path("checkpoints/pusht")
    assert shipped("checkpoints/judges") == ROOT / "checkpoints" / "judges"
    assert shipped("checkpoints/none") == Path("checkpoints/none")
    assert shipped("runs/pusht") == Path("runs/pusht")


def test_package_data_comes_before_what_lies_beside_the_package(tmp_path, monkeypatch):
    inside, beside = tmp_path / "site" / "worldmodel", tmp_path / "site"
    for module in (files, model_folder):
        monkeypatch.setattr(module, "PLACES", (inside, beside))
    monkeypatch.chdir(tmp_path)
    (beside / "checkpoints" / "pusht").mkdir(parents=True)
    assert shipped("checkpoints/pusht") == beside / "checkpoints" / "pusht"
    (inside / "checkpoints" / "pusht").mkdir(parents=True)
    assert shipped("checkpoints/pusht") == inside / "checkpoints" / "pusht"


def test_a_mistyped_path_is_one_line_and_asks_no_hub(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "pusht").mkdir(parents=True)
    (tmp_path / "file").touch()
    for name, message in {
        "runs/pusth": f"runs/pusth: no such folder in {tmp_path}; did you mean runs/pusht?",
        "rnus/pusht": f"rnus/pusht: no such folder in {tmp_path}; did you mean runs?",
        "user/model": f"user/model: no such folder in {tmp_path}; a model on the hub is named hf://USER/NAME",
        f"{tmp_path}/runs/push": f"{tmp_path}/runs/push: no such folder; did you mean {tmp_path}/runs/pusht?",
        "checkpoints/pusth": (
            f"checkpoints/pusth: no such folder in {tmp_path} or {ROOT}; did you mean checkpoints/pusht?"
        ),
        "file": "file: a file, expected a folder",
    }.items():
        with pytest.raises(ValueError) as caught:
            find_folder(name)
        assert str(caught.value) == message


def test_the_hub_is_asked_for_what_is_named_so(saved, monkeypatch):
    folder, _, load = saved
    asked = []

    def download(name, **options):
        asked.append((name, options))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    load("hf://somebody/a-model")
    load("hf://somebody/a-model@v1.0")
    patterns = {"allow_patterns": ["*.json", "*.safetensors"], "repo_type": "model", "local_files_only": False}
    assert asked == [
        ("somebody/a-model", {"revision": None, **patterns}),
        ("somebody/a-model", {"revision": "v1.0", **patterns}),
    ]
    for wrong in ("hf://a-model", "hf://somebody/a-model@", "hf://a/b/c"):
        with pytest.raises(ValueError, match=f"{wrong}: expected hf://USER/NAME or hf://USER/NAME@REVISION"):
            load(wrong)


def test_what_the_hub_does_not_give_is_one_line():
    """The tests run with HF_HUB_OFFLINE=1."""
    with pytest.raises(ValueError, match=r"^hf://nobody/nothing: cannot be fetched from the hub: .+") as caught:
        find_folder("hf://nobody/nothing")
    assert "\n" not in str(caught.value)


def test_nothing_is_unpickled(saved):
    """A pickle beside the description is no weights file."""
    folder, _, load = saved
    shutil.move(folder / "weights.safetensors", folder / "kept")
    torch.save(load_file(folder / "kept"), folder / "weights.bin")
    assert "weights.safetensors: missing" in refusal(load, folder)


def test_another_kind_of_model_is_named(tmp_path):
    tiny_world().save(tmp_path / "world")
    ClonedPolicy(PolicyConfig(**LOOKS, action_dim=2, state_dim=2)).save(tmp_path / "policy")
    said = f"{tmp_path / 'policy'}: this is a policy, not a world model: world.json is missing, there is policy.json"
    assert refusal(WorldModel.load, tmp_path / "policy").startswith(said)
    assert "this is a world model, not a judge: judge.json is missing" in refusal(LearnedJudge.load, tmp_path / "world")
    (tmp_path / "world" / "weights.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0")
    assert "weights.safetensors: a Git LFS pointer" in refusal(WorldModel.load, tmp_path / "world")


def test_an_earlier_run_is_not_written_over(tmp_path):
    check_out(tmp_path / "new", "policy.json", overwrite=False)
    (tmp_path / "policy.json").touch()
    check_out(tmp_path, "policy.json", overwrite=True)
    check_out(tmp_path, "policy.json", overwrite=False, resume=True)
    said = f"{tmp_path / 'policy.json'} exists already; {{}}pass --overwrite to begin anew, or choose another --out"
    for resume, ways in ((None, ""), (False, "pass --resume to continue that run, ")):
        with pytest.raises(ValueError) as caught:
            check_out(tmp_path, "policy.json", overwrite=False, resume=resume)
        assert str(caught.value) == said.format(ways)
    with pytest.raises(ValueError, match="pass one of them"):
        check_out(tmp_path, "policy.json", overwrite=True, resume=True)


def test_a_folder_with_something_else_is_not_written_into(tmp_path):
    (tmp_path / "state").mkdir()
    check_out(tmp_path, "world.json", overwrite=False)  # empty folders are nothing
    (tmp_path / ".world.1.abc.part.json").touch()  # neither is what a killed run had not finished
    check_out(tmp_path, "world.json", overwrite=False)
    (tmp_path / "state" / "mine.txt").write_text("mine")
    said = f"{tmp_path} is not empty, it holds state/mine.txt; pass --overwrite to write beside it, or choose another"
    with pytest.raises(ValueError, match=re.escape(said)):
        check_out(tmp_path, "world.json", overwrite=False, resume=False)
    check_out(tmp_path, "world.json", overwrite=True)
    assert (tmp_path / "state" / "mine.txt").read_text() == "mine"
    with pytest.raises(ValueError, match="a file, expected a folder"):
        check_out(tmp_path / "state" / "mine.txt", "world.json", overwrite=True)
    with pytest.raises(ValueError, match=re.escape("mine.txt exists already; pass --overwrite to replace it")):
        check_file(tmp_path / "state" / "mine.txt", overwrite=False)
    check_file(tmp_path / "new.json", overwrite=False)
    check_file(tmp_path / "state" / "mine.txt", overwrite=True)


def test_what_one_can_do_without_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_optional("none", "judge.json") is None
    assert find_optional("checkpoints/pusht", "judge.json") is None
    assert find_optional("checkpoints/pusht", "world.json") == ROOT / "checkpoints" / "pusht"


def test_of_several_launched_processes_the_first_one_checks(tmp_path, monkeypatch):
    """The others may come when it has already written something."""
    (tmp_path / "world.json").write_text("{}")
    monkeypatch.setenv("RANK", "1")
    check_out(tmp_path, "world.json", overwrite=False)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ValueError, match="exists already"):
        check_out(tmp_path, "world.json", overwrite=False)
