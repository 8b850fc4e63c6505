"""Put a model on the hub: its files, its reports and its card, in one commit. `worldmodel push`."""

import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PureWindowsPath
from typing import Annotated, Any

import tyro

from worldmodel.display.ranges import check_ranges
from worldmodel.files import HUB, check_whole, is_on_hub, is_shipped, read_object
from worldmodel.model.card import LOADERS, CardFacts, model_card
from worldmodel.model.folder import WEIGHTS, find_folder, fingerprint

REPORTS = ("fidelity.json", "ranking.json", "report.json", "calibration.json", "training.json", "imagination.json")
"""Files that are uploaded with a model if they are in its folder; only the last part of the paths in them is kept."""
CODEC = ("codec/*.json", "codec/*.safetensors")
TAGS = {
    "world.json": ["robotics", "world-model"],
    "policy.json": ["robotics", "policy"],
    "judge.json": ["robotics", "judge"],
    "config.json": ["robotics", "inverse-dynamics"],
}
LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
PARENTS = re.compile(r"(?<![\w.:/~])([A-Za-z]:)?[\\/]([^\s'\",()]+[\\/])+")
"""The folders of an absolute path inside a text; not those of a web address."""
METADATA = "---\n"
"""The first line of a card with metadata."""


@dataclass(frozen=True)
class PushConfig:
    """Put a model on the hub, with a card of its figures, so that others can load it by hf://USER/NAME.

    You log in with `hf auth login` or set HF_TOKEN. The model, its reports, and a README.md are uploaded, and nothing
    else from its folder; a README.md of yours in the folder is used as it is.
    """

    model: Annotated[str | Path, tyro.conf.Positional]
    """Folder of a world model, policy, judge or inverse dynamics."""
    to: Annotated[str, tyro.conf.Positional]
    """The repository, hf://USER/NAME; it is made if it does not exist."""
    private: bool = True
    """Only you can see a new repository; with --no-private everybody can. An existing repository stays as it is."""
    dry_run: bool = False
    """Print the card and the names of the files, and upload nothing."""
    facts: Annotated[CardFacts, tyro.conf.arg(name="")] = field(default_factory=CardFacts)
    """What the card says in addition to what is in the folder."""


def push(config: PushConfig, token: str | None = None) -> str:
    """Upload a model folder; returns the address of the commit, or an empty text after a dry run.

    Args:
        config: What to upload, and where.
        token: An access token of the hub; the one of `hf auth login` or HF_TOKEN when not given.

    Raises:
        ValueError: The folder does not hold a whole model, a report or the name is malformed, or the hub refuses; the
            message is one line.
    """
    check_ranges(config)
    name = repository(config.to)
    folder = find_folder(config.model)
    file = description_of(folder)
    check_backbone(folder / file)
    files = files_to_push(folder, file, name, config.facts)
    if config.dry_run:
        print(files["README.md"].decode())
        print(f"{config.model}: would upload {', '.join(files)} to hf://{name}; nothing was uploaded")
        return ""
    address = upload(name, files, LOADERS[file][0], private=config.private, token=token)
    print(f"{config.model} is on the hub: {address}; load it by hf://{name}")
    return address


def check_backbone(description: Path) -> None:
    """Refuse a world model whose pretrained transformer is in a local folder that does not ship with this package.

    Raises:
        ValueError: It is; the message names the field and the folder.
    """
    network = read_object(description).get("config", {}).get("dit", {})
    backbone = network.get("backbone", "")
    if backbone and not is_on_hub(backbone) and not is_shipped(backbone):
        raise ValueError(
            f"{description}: config.dit.backbone is {backbone!r}, a local folder that others do not have; write the "
            "transformer's name on the hub there, hf://USER/NAME@REV"
        )


def push_saved(
    save: Callable[[Path], None], name: str, *, private: bool, facts: CardFacts | None, token: str | None
) -> str:
    """Save a model into a temporary folder, and upload it as `push` does."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / repository(name).rpartition("/")[2]
        save(folder)
        config = PushConfig(folder, name, private=private, facts=CardFacts() if facts is None else facts)
        return push(config, token)


def repository(name: str) -> str:
    """`USER/NAME` of `hf://USER/NAME` or of itself.

    Raises:
        ValueError: It has another form.
    """
    found = HUB.fullmatch(name if is_on_hub(name) else f"hf://{name}")
    if found is None or found["revision"] is not None:
        raise ValueError(f"{name}: expected hf://USER/NAME, without a revision")
    return found["name"]


def description_of(folder: Path) -> str:
    """Name of the file that describes the model in a folder.

    Raises:
        ValueError: There is none, there are several, or the file is of another package.
    """
    found = [file for file in LOADERS if (folder / file).is_file()]
    if len(found) != 1:
        there = f"there are {' and '.join(found)}" if found else f"none of {', '.join(LOADERS)} is there"
        raise ValueError(f"{folder}: a folder of one model is pushed, {there}")
    if "format" not in read_object(folder / found[0]):
        raise ValueError(f"{folder / found[0]}: the field 'format' is missing, so it was not written by this package")
    return found[0]


def files_to_push(folder: Path, file: str, name: str, facts: CardFacts) -> dict[str, Path | bytes]:
    """The content of every file of the repository, by its name there.

    Raises:
        ValueError: A file is missing, empty or a Git LFS pointer, or a report is malformed.
    """
    codec = sorted(path for pattern in CODEC for path in folder.glob(pattern))
    parts = {path.relative_to(folder).as_posix(): path for path in (folder / file, folder / WEIGHTS, *codec)}
    for path in parts.values():
        check_whole(path)
    found = {each: read_object(folder / each) for each in REPORTS if (folder / each).is_file()}
    found |= {each: reports[0] for each, reports in facts.reports(folder).items() if reports}
    if "ranking.json" in found:
        check_ranking_of(folder, file, found["ranking.json"])
    texts = {each: json.dumps(without_paths(report), indent=2).encode() for each, report in found.items()}
    return {**parts, **texts, "README.md": card_of(folder, file, name, facts).encode()}


def check_ranking_of(folder: Path, file: str, ranking: dict[str, Any]) -> None:
    """Raise a `ValueError` if a ranking was made with another world model or judge than the one in the folder."""
    kind = file.partition(".")[0]
    if kind not in ("world", "judge"):
        return
    made_with = ranking.get("made_with", {}).get("dream", {}).get(kind)
    if made_with != fingerprint(folder):
        raise ValueError(
            f"{folder}: the ranking was made with the {kind} {made_with}, this one is {fingerprint(folder)}; "
            "a card shows the figures of its own model"
        )


def card_of(folder: Path, file: str, name: str, facts: CardFacts) -> str:
    """The card with its metadata: the README.md in the folder, if there is one, else `model_card`.

    Raises:
        ValueError: There is a README.md, and the owner says more, for which there is no place in it.
    """
    mine = folder / "README.md"
    text = mine.read_text(encoding="utf-8") if mine.is_file() else model_card(name, folder, file, facts)
    block = text.startswith(METADATA)
    unused = ("data", "limits", *(["license", "datasets"] if block else [])) if mine.is_file() else ()
    for option in unused:
        if getattr(facts, option):
            raise ValueError(
                f"{mine} is the card as it stands, so --{option} has no use; write it there, or move the file"
            )
    return text if block else f"{metadata(read_object(folder / file), file, facts)}\n{text}"


def metadata(described: dict[str, Any], file: str, facts: CardFacts) -> str:
    """The YAML block at the top of a card, from which the hub lists and filters models.

    Raises:
        ValueError: The licence or a data set has a form that the hub does not know.
    """
    from huggingface_hub import ModelCardData

    if facts.license and not LICENSE.fullmatch(facts.license):
        raise ValueError(
            f"--license {facts.license}: the hub names licences in small letters, such as apache-2.0, mit, cc-by-4.0"
        )
    noted = [HUB.fullmatch(str(each.get("name", ""))) for each in described.get("train_data", [])]
    names = [each["name"] for each in noted if each] + [repository(each) for each in facts.datasets]
    data = ModelCardData(
        license=facts.license or None,
        library_name="worldmodel",
        pipeline_tag="robotics",
        tags=TAGS[file],
        datasets=list(dict.fromkeys(names)) or None,
    )
    return f"{METADATA}{data.to_yaml()}\n{METADATA}"


def without_paths(value: Any) -> Any:
    """A copy of a report without local paths: of every absolute path only the last part is left."""
    if isinstance(value, dict):
        return {key: without_paths(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_paths(each) for each in value]
    if not isinstance(value, str):
        return value
    if PurePath(value).is_absolute() or PureWindowsPath(value).is_absolute():
        return PureWindowsPath(value).name
    return PARENTS.sub("", value)


def upload(name: str, files: dict[str, Path | bytes], kind: str, *, private: bool, token: str | None) -> str:
    """Make the repository if it does not exist, and upload all files in one commit; returns its address.

    Raises:
        ValueError: The hub refuses, or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(token=token, library_name="worldmodel")
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    try:
        api.create_repo(name, private=private, exist_ok=True)
        return api.create_commit(name, operations, commit_message=f"Upload a {kind}").commit_url
    except Exception as error:  # the errors of the client, of its transport and of the network have no class in common
        raise ValueError(f"hf://{name}: cannot be pushed: {refusal(error)}") from error


def refusal(error: Exception) -> str:
    """Why the hub refuses, in one line."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    hints = {
        401: "the hub does not know you: log in with `hf auth login`, or set HF_TOKEN",
        403: "you have no right to write there: check the user's name, and that your token can write",
        404: "there is no such user or repository, or your token cannot see it",
    }
    said = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
    return f"{hints[status]} ({said})" if status in hints else said
