import json
import math
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from drawn_episodes import DrawnEpisodes, TellingWorld, stir, tiny_world
from places import BENCHMARKS, LEROBOT_V30
from rich.console import Console

from worldmodel.data import open_episodes
from worldmodel.envs import object_names
from worldmodel.fidelity.measure import FidelityConfig, fidelity, measure_fidelity
from worldmodel.fidelity.perceptual import VisibleDistance, missing_reason
from worldmodel.fidelity.report import fidelity_table, plot_fidelity, print_fidelity

DATA = LEROBOT_V30


def leaves(tree: dict, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    found = {}
    for key, value in tree.items():
        found |= leaves(value, (*path, key)) if isinstance(value, dict) else {(*path, key): value}
    return found


def decibel(levels: float) -> float:
    return -20 * math.log10(levels / 255)


def test_a_fresh_world_is_as_good_as_copying_the_last_frame() -> None:
    # grey rises by 3 per frame, by 1 in odd episodes: 15 and 5 levels at horizon 5
    source = DrawnEpisodes([16, 15, 14, 16, 14, 15], lambda e, t: 100 + (1 if e % 2 else 3) * t)
    report = measure_fidelity(tiny_world(), source, horizon=5, batch=5, starts=2)
    assert report["cameras"] == {view: report["copy_last"][view] for view in ("top", "wrist")}
    top = report["cameras"]["top"]
    assert list(top["psnr"]) == ["1", "5"]
    for horizon in (1, 5):
        expected = (decibel(3 * horizon) + decibel(horizon)) / 2
        assert top["psnr"][str(horizon)] == pytest.approx(expected, rel=1e-5)
        low, high = report["intervals"]["cameras"]["top"]["psnr"][str(horizon)]
        assert decibel(3 * horizon) - 1e-4 <= low < expected < high <= decibel(horizon) + 1e-4
        assert report["n"]["cameras"]["top"]["psnr"][str(horizon)] == 12
    # no pixel changes by more than 0.1 = 25.5 levels
    assert top["masked_psnr"] == {"1": None, "5": None}
    assert report["codec"]["top"]["psnr"] == pytest.approx(50)
    gaps = report["action_following"]
    assert set(gaps) == {"shuffled", "hold", "mirrored"}
    assert all(gap["psnr_gap"] == {"1": 0.0, "5": 0.0} for gap in gaps.values())
    assert "objects" not in report
    json.dumps(report, allow_nan=False)


def test_means_are_over_every_dreamed_frame() -> None:
    """This world brightens by the action, 2, where the recordings brighten by 3: frame 4 is 4 levels off."""
    told = TellingWorld(tiny_world(relative=False).config).eval()
    source = DrawnEpisodes([14] * 5, lambda e, t: 100 + 3 * t, action=lambda e, t: 2 + 0 * t)
    report = measure_fidelity(told, source, horizon=6, starts=1, alterations=(), mean=True)
    means = {}
    for kind, slope in (("cameras", 1), ("copy_last", 3)):
        means[kind] = sum(decibel(slope * frame) for frame in range(1, 7)) / 6
        assert report["mean"][kind]["wrist"]["psnr"] == pytest.approx(means[kind], rel=1e-4)
        assert report[kind]["wrist"]["psnr"]["5"] == pytest.approx(decibel(5 * slope), rel=1e-4)
    assert report["n"]["mean"]["cameras"]["top"]["psnr"] == 5 and len(report["intervals"]["mean"]) == 2
    headings = [column.header for column in fidelity_table(report).columns]
    assert headings == ["metric", "model", "1", "5", "mean 1-6", "codec"]
    cells = [list(column.cells)[:2] for column in fidelity_table(report).columns]
    assert cells[4] == [f"{each:.2f}" for each in means.values()] and cells[5] == ["50.00", ""]
    assert "mean" not in measure_fidelity(tiny_world(), source, horizon=1, starts=1, alterations=())


@pytest.mark.skipif(missing_reason() is not None, reason="needs worldmodel[perceptual]")
def test_the_perceptual_distance_has_its_own_name() -> None:
    source = DrawnEpisodes([14, 14], lambda e, t: 100 + 3 * t, size=(32, 32))
    options = {"horizon": 1, "starts": 1, "alterations": ()}
    report = measure_fidelity(tiny_world(size=(32, 32)), source, perceptual=VisibleDistance(0), **options)
    assert report["copy_last"]["top"]["efficientnet_lite0"]["1"] > 0
    assert report["codec"]["top"]["efficientnet_lite0"] == pytest.approx(0, abs=1e-6)
    labels = [str(cell) for cell in fidelity_table(report).columns[0].cells]
    assert "top: EfficientNet-lite0 distance" in labels and "top: EfficientNet-lite2 distance" not in labels


def test_masked_psnr_is_of_the_changed_pixels() -> None:
    source = DrawnEpisodes([13, 13], lambda e, t: 100 + 6 * t)
    report = measure_fidelity(tiny_world(), source, horizon=5, alterations=())
    # 30 levels at horizon 5: every pixel is in the mask; 6 levels at horizon 1: none
    masked = report["cameras"]["wrist"]["masked_psnr"]
    assert masked["1"] is None
    assert masked["5"] == pytest.approx(decibel(30), rel=1e-5)
    assert "action_following" not in report


def test_letterbox_padding_is_left_out() -> None:
    class Padded(DrawnEpisodes):
        def frames(self, episode, index):
            frames = super().frames(episode, index).clone()
            frames[:, :, :2] = 0  # padding never changes, so it would raise the PSNR
            return frames

    mask = torch.ones(2, 16, 16, dtype=torch.bool)
    mask[:, :2] = False
    source = Padded([13, 13], pixel_mask=mask)
    report = measure_fidelity(tiny_world(), source, horizon=5, alterations=())
    assert report["copy_last"]["top"]["psnr"]["5"] == pytest.approx(decibel(5), rel=1e-5)


def test_a_missing_camera_is_left_out() -> None:
    class OneEyed(DrawnEpisodes):
        def read(self, episode, start, stop, stride=1):
            clip = super().read(episode, start, stop, stride)
            shown = torch.tensor([True, episode == 0])
            return type(clip)(**{**vars(clip), "view_mask": shown})

    report = measure_fidelity(tiny_world(), OneEyed([13, 13]), horizon=1, starts=1)
    assert report["n"]["cameras"]["top"]["psnr"]["1"] == 2
    assert report["n"]["cameras"]["wrist"]["psnr"]["1"] == 1
    assert report["n"]["codec"]["wrist"]["psnr"] == 1
    assert report["n"]["action_following"]["hold"]["psnr_gap"]["1"] == 2


def test_the_gap_is_due_to_the_actions_alone() -> None:
    # all actions are zero, so holding and mirroring change nothing, bit by bit
    world = stir(tiny_world(relative=False))
    still = DrawnEpisodes([14, 14], action=lambda e, t: 0 * t)
    report = measure_fidelity(world, still, horizon=5, starts=2, batch=3)
    gaps = report["action_following"]
    assert all(gap["psnr_gap"] == {"1": 0.0, "5": 0.0} for gap in gaps.values())
    # episodes that differ in their actions: shuffling, holding and mirroring all change the dream
    moving = DrawnEpisodes([14, 14], action=lambda e, t: 3 * t + 40 * e + 1)
    gaps = measure_fidelity(world, moving, horizon=5, starts=2)["action_following"]
    assert all(gap["psnr_gap"]["5"] != 0.0 for gap in gaps.values())
    cameras = gaps["hold"]["cameras"]
    mean = (cameras["top"]["psnr_gap"]["5"] + cameras["wrist"]["psnr_gap"]["5"]) / 2
    assert gaps["hold"]["psnr_gap"]["5"] == pytest.approx(mean)


def test_the_gap_is_what_altered_actions_lose() -> None:
    """Actions are 2 a frame; this world brightens each frame by the action, as the recordings do.

    Holding leaves the picture as it was: 2 levels off at the first frame. Mirrored it darkens: 4 levels off.
    """

    told = TellingWorld(tiny_world(relative=False).config).eval()
    source = DrawnEpisodes([14, 14], lambda e, t: 100 + 2 * t, action=lambda e, t: 2 + 0 * t)
    gaps = measure_fidelity(told, source, horizon=1, starts=1)["action_following"]
    exact = 50.0
    assert gaps["hold"]["psnr_gap"]["1"] == pytest.approx(exact - decibel(2), rel=1e-4)
    assert gaps["mirrored"]["psnr_gap"]["1"] == pytest.approx(exact - decibel(4), rel=1e-4)
    assert gaps["shuffled"]["psnr_gap"]["1"] == 0.0
    assert gaps["hold"]["cameras"]["wrist"]["psnr_gap"]["1"] == gaps["hold"]["psnr_gap"]["1"]


def test_the_gain_over_copying_has_its_own_interval() -> None:
    """This world brightens by the action, 2, where the recordings brighten by 2 and, in odd episodes, by 5."""
    told = TellingWorld(tiny_world(relative=False).config).eval()
    source = DrawnEpisodes([14] * 6, lambda e, t: 100 + (2 + 3 * (e % 2)) * t, action=lambda e, t: 2 + 0 * t)
    report = measure_fidelity(told, source, horizon=1, starts=1, alterations=())
    exact, gains = 50.0, [50.0 - decibel(2), decibel(3) - decibel(5)]
    assert report["cameras"]["top"]["psnr"]["1"] == pytest.approx((exact + decibel(3)) / 2, rel=1e-4)
    assert report["gain"]["top"]["psnr"]["1"] == pytest.approx(sum(gains) / 2, rel=1e-4)
    low, high = report["intervals"]["gain"]["top"]["psnr"]["1"]
    assert gains[1] - 1e-3 <= low < sum(gains) / 2 < high <= gains[0] + 1e-3
    assert report["gain"]["top"]["masked_psnr"]["1"] is None  # no pixel changes enough


def test_the_report_does_not_depend_on_the_batch_size() -> None:
    world, source = stir(tiny_world()), DrawnEpisodes([14, 14, 15])
    options = {"horizon": 5, "starts": 2, "alterations": ()}
    one = measure_fidelity(world, source, batch=2, **options)
    all_at_once = measure_fidelity(world, source, batch=6, **options)
    first, second = leaves(one["cameras"]), leaves(all_at_once["cameras"])
    for path, value in first.items():
        assert second[path] == pytest.approx(value, abs=0.05), path
    other_seed = measure_fidelity(world, source, seed=9, **options)
    assert other_seed["cameras"] != all_at_once["cameras"]


def test_compared_models_share_the_mask() -> None:
    source = DrawnEpisodes([13, 13], lambda e, t: 100 + 6 * t)
    rival = tiny_world()
    torch.nn.init.constant_(rival.dit.head.last.bias, 0.5)  # everything 64 levels brighter
    alone = measure_fidelity(tiny_world(), source, horizon=1, alterations=())
    together = measure_fidelity(tiny_world(), source, horizon=1, alterations=(), compared_with=[rival])
    assert alone["cameras"]["top"]["masked_psnr"]["1"] is None
    assert together["cameras"]["top"]["masked_psnr"]["1"] == pytest.approx(decibel(6), rel=1e-5)


def test_strides_are_those_of_the_world() -> None:
    source = DrawnEpisodes([19, 17], lambda e, t: 100 + t)
    report = measure_fidelity(tiny_world(stride=2), source, horizon=1, starts=2)
    assert report["copy_last"]["top"]["psnr"]["1"] == pytest.approx(decibel(2), rel=1e-5)
    assert report["metadata"]["stride"] == 2


def test_one_episode_has_nobody_to_swap_actions_with() -> None:
    report = measure_fidelity(tiny_world(), DrawnEpisodes([13]), horizon=1, starts=1)
    assert report["action_following"]["shuffled"]["psnr_gap"] == {"1": None}
    assert report["action_following"]["hold"]["psnr_gap"] == {"1": 0.0}
    assert report["intervals"]["cameras"]["top"]["psnr"]["1"] is None


def test_a_world_without_actions_has_no_action_following() -> None:
    world = tiny_world(relative=False, action_dim=0, state_dim=0)
    report = measure_fidelity(world, DrawnEpisodes([13, 13]), horizon=5)
    assert report["cameras"]["top"]["psnr"]["5"] == pytest.approx(decibel(5), rel=1e-5)
    assert report["action_following"]["hold"]["psnr_gap"] == {"1": None, "5": None}


def test_trained_episodes_are_left_out_unless_asked_for() -> None:
    world, source = tiny_world(), DrawnEpisodes([13, 13, 13])
    world.train_data = [
        {
            "fingerprint": source.fingerprint,
            "name": "drawn",
            "episodes": [1, 2],
            "reset_seeds": None,
            "robot_type": "drawn",
        }
    ]
    held_out = measure_fidelity(world, source, horizon=1, alterations=())
    assert [held_out["metadata"][key] for key in ("episodes", "left_out", "trained_on")] == [1, 2, []]
    alone = measure_fidelity(tiny_world(), DrawnEpisodes(source.lengths[:1]), horizon=1, alterations=())
    assert held_out["cameras"] == alone["cameras"]
    world.train_data[0]["episodes"].append(0)
    with pytest.raises(ValueError, match=r"drawn: all 3 episodes were trained on.*--include-train"):
        measure_fidelity(world, source, horizon=1)
    world.train_data[0]["episodes"].remove(0)
    report = measure_fidelity(world, source, horizon=1, include_train=True, alterations=())
    assert report["metadata"]["trained_on"] == [1, 2]


def test_what_does_not_fit_is_named_with_both_values() -> None:
    source = DrawnEpisodes([13])
    with pytest.raises(ValueError, match=r"drawn: views is \('top', 'wrist'\).*\('side',\)"):
        measure_fidelity(tiny_world(views=("side",)), source, horizon=1)
    with pytest.raises(ValueError, match=r"drawn: size is \(16, 16\).*\(32, 32\)"):
        measure_fidelity(tiny_world(size=(32, 32)), source, horizon=1)
    with pytest.raises(ValueError, match="horizon=0, expected at least 1"):
        measure_fidelity(tiny_world(), source, horizon=0)
    with pytest.raises(ValueError, match="episode 0 has 13 frames"):
        measure_fidelity(tiny_world(), source, horizon=6)


@pytest.mark.slow
def test_recorded_data_from_files_to_files(tmp_path: Path, capsys) -> None:
    source = open_episodes(DATA, size=(64, 64))
    world = tiny_world(size=(64, 64), views=source.views)
    world.save(tmp_path / "world")
    config = FidelityConfig(
        world=str(tmp_path / "world"),
        data=DATA,
        horizon=5,
        num_steps=1,
        starts=1,
        out=tmp_path / "out" / "fidelity.json",
        device="cpu",
    )
    report = fidelity(config)
    assert json.loads(config.out.read_text()) == report
    assert (tmp_path / "out" / "fidelity.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert printed.count("LPIPS is left out") == 1 and "it cannot be told whether the dreams" in printed
    assert "masked PSNR" in printed and "block" in printed
    paths = leaves(report)
    for name in object_names("pusht"):
        assert ("objects", name, "missing", "1") in paths and ("objects", name, "overlap", "5") in paths
        assert 0.5 < report["objects"][name]["overlap"]["1"] <= 1
        # the fresh world copies the last frame
        assert report["objects"][name] == report["copy_last"]["objects"][name]
    assert report["objects"]["agent"]["error_px"]["5"] > 1
    assert set(leaves(report["intervals"])) == set(leaves(report["n"]))
    assert set(leaves(report["n"])) == {path for path in paths if path[0] not in ("intervals", "n", "metadata")}


def test_guidance_reaches_the_dreams(tmp_path: Path) -> None:
    tiny_world(size=(64, 64)).save(tmp_path / "world")
    config = FidelityConfig(str(tmp_path / "world"), DATA, horizon=1, starts=1, guidance=2.0, device="cpu")
    with pytest.raises(ValueError, match=r"guidance is 2\.0, but .* --action-dropout"):
        fidelity(config)
    for wrong in (-0.5, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"--guidance is at least 0.*, got {wrong}"):
            fidelity(replace(config, guidance=wrong))


def test_table_and_plot_of_missing_values(tmp_path: Path) -> None:
    report = measure_fidelity(tiny_world(), DrawnEpisodes([13]), horizon=1, starts=1)
    console = Console(record=True, width=120)
    print_fidelity(report, console)
    rows = [line for line in console.export_text().splitlines() if "shuffled" in line]
    assert len(rows) == 1 and "-" in rows[0]
    plot_fidelity(report, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_the_bars_are_read_from_the_report() -> None:
    bars = runpy.run_path(str(BENCHMARKS / "fidelity.py"))
    report = {
        "cameras": {"top": {"psnr": {"1": 1.0, "5": 33.0, "10": 32.5, "50": 26.0}}},
        "copy_last": {"top": {"psnr": {"1": 2.0, "5": 32.0, "10": 32.5, "50": 22.0}}},
        "objects": {"agent": {"error_px": {"10": 0.5}, "missing": {"10": 0.0, "50": 0.02}}},
        "action_following": {"shuffled": {"psnr_gap": {"10": None}}},
    }
    rows = bars["bars_table"]({2: report}).splitlines()
    assert rows[0] == "| bar | needed | 2 steps |"
    figures = [row.split(" | ")[-1].removesuffix(" |") for row in rows[2:]]
    assert figures == [
        "32.50 (pass)",
        "26.00 (MISSED)",
        "0.50 (pass)",
        "not measured",
        "not measured",
        "2.0% (MISSED)",
        "1 (MISSED)",
        "not measured",
    ]
    assert bars["losses_to_copying"](report) == ["top psnr at 10"]
