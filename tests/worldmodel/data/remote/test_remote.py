"""The same episodes by a URL as from the disk, in every format; and what is said when a URL does not serve them."""

import functools
import multiprocessing
import os
import re
import shutil
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from hdf5_sets import write_hdf5_set
from hub_server import TOKEN, running_hub
from plain_folders import write_pictures, write_plain
from refusing import refusing
from small_sets import V21, V30, digest, edit_lines

from worldmodel.data import open_episodes
from worldmodel.data.formats import DataWarning
from worldmodel.data.lerobot.read import recorded_policies
from worldmodel.data.options import DataOptions
from worldmodel.data.remote import contents, outline
from worldmodel.data.remote.contents import contents_folder
from worldmodel.data.remote.tree import find_place, held, stand_in, told
from worldmodel.data.remote.url import is_url, normal_url, without_secrets
from worldmodel.data.sample import sample_clips
from worldmodel.data.video.part import Samples, byte_ranges

pytestmark = pytest.mark.filterwarnings("ignore::worldmodel.data.formats.DataWarning")
KINDS = ("v2.1", "v3.0", "plain", "pictures", "robomimic", "ALOHA")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLDMODEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "PAUSE", 0.0)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A folder of each format."""
    root = tmp_path_factory.mktemp("sets")
    write_plain(root / "plain")
    for episode in range(2):
        write_pictures(root / "pictures" / f"episode_{episode}" / "top", episode)
    for kind in ("robomimic", "ALOHA"):
        write_hdf5_set(root / kind, kind)
    return {"v2.1": V21, "v3.0": V30} | {kind: root / kind for kind in KINDS[2:]}


@functools.cache
def expected(folder: Path) -> str:
    """What the folder itself holds."""
    return digest(open_episodes(folder))


@pytest.fixture
def memory():
    """An empty memory of fsspec."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def put(folder: Path, name: str = "set", kind: str = "memory") -> str:
    """Copy a folder into a file system in memory, and return its URL."""
    system = fsspec.filesystem(kind)
    for file in (file for file in folder.rglob("*") if file.is_file()):
        system.pipe_file(f"/{name}/{file.relative_to(folder).as_posix()}", file.read_bytes())
    return f"{kind}://{name}"


def fetched_bytes() -> int:
    return sum(file.stat().st_size for file in contents_folder().glob("*") if file.suffix not in (".lock", ".sha256"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bound", [None, 1e-6])
def test_every_format_is_the_same_by_a_url(kind, bound, sets, memory):
    source = open_episodes(sets[kind])
    streamed = open_episodes(put(sets[kind]), options=DataOptions(cache_gb=bound))
    assert digest(streamed) == expected(sets[kind])
    assert (streamed.name, streamed.own_size, streamed.notes) == ("memory://set", source.own_size, streamed.notes)
    assert set(source.notes) <= set(streamed.notes)
    if bound is not None:
        largest = max(file.stat().st_size for file in sets[kind].rglob("*") if file.is_file())
        assert fetched_bytes() <= max(bound * 1e9, largest)


@pytest.mark.parametrize(("codec", "share"), [("av1", 1.0), ("h264", 0.3)])
def test_parts_of_large_videos_give_the_same_frames(codec, share, memory, tmp_path, monkeypatch):
    monkeypatch.setattr(outline, "SMALL", 0)
    folder = V30 if codec == "av1" else write_plain(tmp_path / "plain", lengths=(60, 90), write=lambda *_: None)
    largest = max(file.stat().st_size for file in folder.rglob("*.mp4"))
    source = open_episodes(folder)
    streamed = open_episodes(put(folder), options=DataOptions(cache_gb=share * largest / 1e9))
    for index in range(3):
        how = {"batch": 1, "length": 4, "stride": 1, "seed": 0, "index": index, "episodes": range(len(source))}
        mine, other = (sample_clips(each, **how) for each in (source, streamed))
        assert torch.equal(mine.frames, other.frames)
    parts = list(contents_folder().glob("*.mp4"))
    assert parts and all("-" in file.name for file in parts)  # none was fetched whole
    assert all(file.stat().st_size >= 512 * file.stat().st_blocks - 4096 * 8 for file in parts)
    assert streamed.read(1, 0, 30).frames.equal(source.read(1, 0, 30).frames)


def test_ranges_of_a_part_by_hand():
    # frames of 10 bytes from byte 100 on, a keyframe in 4, shown in the order in which they are stored
    count = np.arange(100)
    samples = Samples(count, 100 + 10 * count, 110 + 10 * count, count % 4 == 0)
    assert byte_ranges(samples, 50, 53, piece=1) == ((100, 350), (100 + 480, 110 + 770))
    assert byte_ranges(samples, 50, 53, piece=100) == ((100, 350), (100 + 400, 110 + 790))
    assert byte_ranges(samples, 2, 3, piece=1) == ((100, 110 + 270),)
    assert byte_ranges(samples, 99, 99, piece=1) == ((100, 350), (100 + 960, 110 + 990))
    open_group = count.copy()
    open_group[[52, 53, 54]] = [54, 52, 53]  # the keyframe is shown after two frames that are stored behind it
    samples_of_it = Samples(open_group, samples.place, samples.end, samples.key)
    assert byte_ranges(samples_of_it, 52, 55, piece=1) == ((100, 350), (100 + 480, 110 + 790))
    late = Samples(count[::-1].copy(), samples.place, samples.end, samples.key)  # stored last first
    assert byte_ranges(late, 0, 0, piece=1) == ((100, 1100),)


@pytest.mark.parametrize("kind", KINDS)
def test_local_files_by_a_url(kind, sets):
    assert digest(open_episodes(f"file://{sets[kind]}")) == expected(sets[kind])


def test_who_acted_is_read_by_a_url(memory):
    assert recorded_policies(put(V21)) == recorded_policies(V21)


def test_a_path_may_be_a_url(memory):
    source = open_episodes(Path(put(V21)))
    assert source.name == "memory://set" and source.lengths == open_episodes(V21).lengths


def test_a_single_file_by_a_url(sets, memory):
    put(sets["robomimic"])
    source = open_episodes("memory://set/demos.hdf5")
    assert digest(source) == expected(sets["robomimic"])


def test_an_archive_by_a_chain_of_urls(tmp_path):
    archive = shutil.make_archive(tmp_path / "set", "zip", V21)
    assert digest(open_episodes(f"zip://::file://{archive}")) == expected(V21)


def test_only_what_is_read_is_fetched(memory, monkeypatch):
    monkeypatch.setattr(outline, "SMALL", 0)
    monkeypatch.setattr(outline, "PART", 2**12)
    source = open_episodes(put(V21), options=DataOptions(episodes="1:3"))
    assert not list(contents_folder().glob("*.mp4"))
    assert len(list(contents_folder().glob("*.parquet"))) == 2
    source.read(1, 0, 3)
    assert len(list(contents_folder().glob("*.mp4"))) == len(source.views)


@pytest.mark.parametrize("folder", [V21, V30])
def test_outlines_tell_what_the_videos_tell(folder, memory, monkeypatch):
    monkeypatch.setattr(outline, "SMALL", 0)
    monkeypatch.setattr(outline, "PART", 2**10)
    source, streamed = open_episodes(folder), open_episodes(put(folder))
    assert not list(contents_folder().glob("*.mp4"))
    outlines = list((contents_folder().parent / "outlines").iterdir())
    assert outlines and all(file.stat().st_blocks * 512 <= file.stat().st_size for file in outlines)
    assert streamed.lengths == source.lengths and streamed.notes == source.notes
    assert [streamed.pictures.codec(0, 0), digest(streamed)] == [source.pictures.codec(0, 0), digest(source)]


def test_the_least_recently_used_file_goes(memory):
    for name in "abc":
        memory.pipe_file(f"/set/{name}.mp4", name.encode() * 400)
    folder = stand_in("memory://set", cache_gb=1000e-9)
    for name in "abac":
        with held(folder / f"{name}.mp4"):
            pass  # reading might set the time of access, too
    left = {file.read_bytes()[:1] for file in contents_folder().glob("*.mp4")}
    assert left == {b"a", b"c"}


def test_a_file_in_use_stays(memory):
    for name in "ab":
        memory.pipe_file(f"/set/{name}.mp4", name.encode() * 400)
    folder = stand_in("memory://set", cache_gb=500e-9)
    with held(folder / "a.mp4") as first, held(folder / "b.mp4"):
        assert first.read_bytes() == b"a" * 400
    with held(folder / "b.mp4"):
        pass
    stand_in("memory://set", cache_gb=300e-9)
    contents_folder().joinpath("left.part").write_bytes(b"half")
    memory.pipe_file("/other/c.mp4", b"c")
    with held(stand_in("memory://other", cache_gb=1e-9) / "c.mp4"):
        assert fetched_bytes() == 1


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: bytes([data[0] ^ 1]) + data[1:], lambda _: b""])
def test_a_damaged_copy_is_fetched_again(spoil, memory):
    memory.pipe_file("/set/a.mp4", b"content")
    file = stand_in("memory://set") / "a.mp4"
    with held(file) as content:
        pass
    status = content.stat()
    content.write_bytes(spoil(b"content"))
    contents._whole.clear()  # as in another process
    os.utime(content, ns=(status.st_atime_ns, status.st_mtime_ns))
    with held(file) as content:
        assert content.read_bytes() == b"content"


def test_a_changed_data_set_is_another_one(memory):
    first = stand_in(put(V21))
    memory.pipe_file("/set/meta/more.json", b"{}")
    second = stand_in("memory://set")
    assert first != second and (second / "meta" / "more.json").is_file()
    memory.pipe_file("/set/meta/more.json", b"[]")
    assert stand_in("memory://set") != second


def test_a_changed_file_of_another_length_is_refused(memory):
    memory.pipe_file("/set/a.json", b"{}")
    file = stand_in("memory://set") / "a.json"
    for data, has in ((b"{} ", "more than 2"), (b"{", "1")):
        memory.pipe_file("/set/a.json", data)
        with pytest.raises(ValueError, match=f"^memory://set/a.json: has {has} bytes, 2 when it was listed"):
            held(file).__enter__()


def test_a_file_that_goes_away_while_it_is_read(sets, memory):
    url = put(sets["plain"])
    source = open_episodes(url)
    for file in contents_folder().glob("*"):
        file.unlink()
    memory.rm("/set", recursive=True)
    with pytest.raises(
        ValueError, match=r"^memory://set: episode 0, camera .*mp4: is gone, it was there when"
    ) as caught:
        source.read(0, 0, 2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError("no entry for AKIA"), "refusing://set/a.json: access is refused: no entry"),
        (
            OSError("403 Forbidden for url: https://u:p@h/a?X-Amz-Signature=abc"),
            r"access is refused: .*https://...@h/a",
        ),
        (ConnectionError("the line\nis cut"), "cannot be read: the line is cut"),
        (KeyError("odd"), "cannot be read: 'odd'"),
        (
            ValueError("two\nlines of https://u:p@h"),
            "refusing://set/a.json: cannot be read: two lines of https://...@h",
        ),
    ],
)
def test_what_a_driver_refuses_is_one_line_without_secrets(error, words):
    system = refusing()
    fsspec.filesystem("refusing").pipe_file("/set/a.json", b"{}")
    file = stand_in("refusing://set") / "a.json"
    system.errors = {"a.json": [error] * 3}
    with pytest.raises(ValueError, match=words) as caught:
        held(file).__enter__()
    assert "\n" not in str(caught.value) and "abc" not in str(caught.value) and "u:p" not in str(caught.value)
    assert not list(contents_folder().glob("*.part"))


def test_a_broken_line_is_tried_again():
    system = refusing()
    fsspec.filesystem("refusing").pipe_file("/set/a.json", b"{}")
    file = stand_in("refusing://set") / "a.json"
    system.errors = {"a.json": [ConnectionError("cut"), TimeoutError("slow")]}
    with held(file) as content:
        assert content.read_bytes() == b"{}"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://nothing", "memory://nothing: lists no files"),
        ("s3://bucket/set", "s3://bucket/set: needs s3fs: pip install s3fs"),
        ("nosuch://set", "nosuch://set: fsspec knows no such kind of URL"),
        ("hf://somebody", "hf://somebody: expected hf://USER/NAME"),
        ("sftp://me:secret@host/set", r"sftp://...@host/set: the URL holds a password"),
        ("https://host/set.hdf5?X-Amz-Signature=secret", r"https://host/set.hdf5\?...: the URL holds a password"),
        ("memory://bad", r"memory://bad: .*\\x.json"),
    ],
)
def test_what_a_url_cannot_be(url, words, memory):
    memory.pipe_file("/bad/\\x.json", b"{}")
    with pytest.raises(ValueError, match=words) as caught:
        open_episodes(url)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("bound", [-1.0, float("nan"), float("inf")])
def test_a_bound_is_a_number_from_zero(bound):
    with pytest.raises(ValueError, match=f"^--cache-gb {bound}: expected a number from 0$"):
        open_episodes(V21, options=DataOptions(cache_gb=bound))


def test_a_refused_listing():
    system = refusing()
    system.errors = {"set": [PermissionError("no")]}
    with pytest.raises(ValueError, match=r"^refusing://set: access is refused: no$"):
        open_episodes("refusing://set")


def test_faults_are_told_with_the_url(memory, tmp_path):
    folder = shutil.copytree(V21, tmp_path / "set")
    edit_lines(folder / "meta" / "episodes.jsonl", lambda rows: [rows[0] | {"length": "seven"}, *rows[1:]])
    with pytest.raises(
        ValueError, match=r"^memory://set: episode 0 of 5 is broken \(0: meta/episodes.jsonl: length is 'seven'"
    ) as caught:
        open_episodes(put(folder))
    assert str(tmp_path) not in str(caught.value)


def test_a_file_larger_than_the_bound_is_noted(memory):
    with pytest.warns(DataWarning, match="more than the 0.001 MB of --cache-gb"):
        open_episodes(put(V21), options=DataOptions(cache_gb=1e-6))


def test_paths_that_look_like_urls(tmp_path):
    assert is_url(Path("s3://bucket/set")) and normal_url(Path("s3://bucket/set/")) == "s3://bucket/set"
    assert is_url("zip://a::s3://b/c.zip") and not is_url("data/pusht") and not is_url("C:\\data") and not is_url("a:b")
    assert normal_url("hf://me/set@v1") == "hf://datasets/me/set@v1"
    assert normal_url("file:///a/b") == normal_url(Path("file:///a/b")).replace("file:/a", "file:///a") == "file:///a/b"
    assert without_secrets("https://a:b@h/x?y=1 and s3://k") == "https://...@h/x?... and s3://k"
    assert find_place(tmp_path) is None and told("plain text") == "plain text"


def _read(url: str, number: int) -> str:
    source = open_episodes(url, options=DataOptions(cache_gb=50e-6))
    return digest(source) if number % 2 else str(source.lengths)


def test_threads_share_a_small_cache(memory):
    source = open_episodes(put(V21), options=DataOptions(cache_gb=50e-6))
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: digest(source), range(3))) == {expected(V21)}
    in_use = 3 * max(file.stat().st_size for file in V21.rglob("*.mp4"))
    assert fetched_bytes() <= 50_000 + in_use and not list(contents_folder().glob("*.part"))


@pytest.mark.slow
def test_processes_share_a_small_cache():
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(_read, [f"file://{V21}"] * 6, [1] * 6))
    assert set(found) == {expected(V21)}
    assert fetched_bytes() <= 50_000 + 2 * max(file.stat().st_size for file in V21.rglob("*.mp4"))


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the hub with a data set."""
    with running_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.hf_file_system.constants.ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        fsspec.get_filesystem_class("hf").clear_instance_cache()
        files = (file for file in V21.rglob("*") if file.is_file())
        hub.repos["datasets/me/pusht"] = {file.relative_to(V21).as_posix(): file.read_bytes() for file in files}
        yield hub
    fsspec.get_filesystem_class("hf").clear_instance_cache()


def test_a_data_set_of_the_hub_is_streamed(hub):
    source = open_episodes("hf://me/pusht@main", options=DataOptions(episodes="0:2"))
    assert source.origins[0].name == "hf://me/pusht@main"
    fetched = [path for method, path in hub.asked if method == "GET" and path.endswith((".mp4", ".parquet"))]
    assert {re.search(r"episode_(\d+)", path)[1] for path in fetched} == {"000000", "000001"}
    assert digest(source) == digest(open_episodes(V21, options=DataOptions(episodes="0:2")))
    assert open_episodes("hf://datasets/me/pusht").lengths == open_episodes(V21).lengths


def test_without_a_network_an_earlier_download_is_used(monkeypatch):
    asked = []

    def download(name, **options):
        asked.append((name, options["revision"], options["repo_type"], options["local_files_only"]))
        return str(V21)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    source = open_episodes("hf://somebody/pusht@main")
    assert asked == [("somebody/pusht", "main", "dataset", True)]
    assert source.origins[0].name == "hf://somebody/pusht@main"


def test_a_data_set_that_the_hub_does_not_have(hub):
    with pytest.raises(ValueError, match="hf://datasets/me/other: there is no such"):
        open_episodes("hf://me/other")
