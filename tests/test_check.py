"""`ptarmigan check`: planted faults are named, healthy files are not accused, and the report says so in four forms."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
import tarfile
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.fft import dctn

import torture
from ptarmigan import Dataset
from ptarmigan.commands.check import CheckReport, bars, check, print_check
from ptarmigan.commands.score_plan import shuffled
from ptarmigan.config import Data
from ptarmigan.data import HELD_OUT, TRAIN, open_dataset
from ptarmigan.data.check import near
from ptarmigan.data.check.files import file_findings
from ptarmigan.data.check.finding import Finding, by_severity
from ptarmigan.data.check.images import flat_images, size_findings
from ptarmigan.data.check.labels import doubtful_labels
from ptarmigan.data.check.summary import summary
from ptarmigan.data.decode import TargetShape
from ptarmigan.data.workers import Failure
from ptarmigan.evaluation.features.cache import cached_features
from support import call, raises, random_projection


def accused(report: CheckReport, code: str) -> set[str]:
    """The paths that a finding names."""
    found = [finding for finding in report.findings if finding.code == code]
    where = [re.sub(r"( \(|: ).*", "", one) for finding in found for one in finding.where]
    return {path for one in where for path in one.split(" and ")}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, set[str]]]:
    root = tmp_path_factory.mktemp("torture") / "photos"
    return root, torture.build(root)


# --- the torture set -------------------------------------------------------------------------------------------------


def test_every_planted_fault_is_named_and_no_healthy_file_is_accused(planted: tuple[Path, dict[str, set[str]]]) -> None:
    root, faults = planted
    report = check(root)
    for code, paths in faults.items():
        assert accused(report, code) == paths, code
    assert {finding.code for finding in report.findings if finding.severity != "note"} <= {*faults, "few-images"}
    assert report.failed
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)


def test_the_list_keeps_what_is_healthy_and_leaves_one_of_each_copy(
    planted: tuple[Path, dict[str, set[str]]], tmp_path: Path
) -> None:
    root, faults = planted
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    check(root, fix=tmp_path / "list.csv", json=tmp_path / "report.json", html=tmp_path / "report.html")
    with open(tmp_path / "list.csv", encoding="utf-8", newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert len(rows) == len(before)
    gone = {path for path, row in rows.items() if row["keep"] == "0"}
    broken = {path for code, paths in faults.items() if code.startswith("file-") for path in paths}
    assert gone >= broken | faults["label-conflict"] | faults["flat"]
    assert len(gone & faults["duplicates"]) == torture.EACH
    assert gone <= broken | faults["label-conflict"] | faults["flat"] | faults["duplicates"]
    assert all(rows[path]["reason"] for path in gone)
    assert rows["bark/000.png"] == dict(path="bark/000.png", label="bark", keep="1", reason="", group="bark/000.png")
    assert rows["bark/near-0.png"]["group"] == rows["bark/near-0b.jpg"]["group"]
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    record = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert record["images"]["train"] + record["images"]["select"] + record["images"]["held-out"] > 100
    (conflict,) = [finding for finding in record["findings"] if finding["code"] == "label-conflict"]
    assert conflict["severity"] == "error"
    assert conflict["count"] == torture.EACH == len(conflict["where"])
    assert record["images"]["not read"] == len(broken)
    train = {finding["code"]: finding["train"] for finding in record["findings"]}
    assert "becomes 255" in train["16-bit"]
    assert "white" in train["transparent"]
    check_page(tmp_path / "report.html", faults)


def check_page(path: Path, faults: dict[str, set[str]]) -> None:
    """The page is whole, and nothing in it needs the network."""
    page = path.read_text(encoding="utf-8")
    opened: list[str] = []
    shown: set[str] = set()  # paths of the pictures

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            named = dict(attributes)
            assert not re.match("https?:|//", named.get("src") or named.get("href") or "")
            if tag == "img":
                shown.add(str(named["alt"]))
                assert str(named["src"]).startswith("data:image/png;base64,")
            if tag not in ("meta", "link", "img"):
                opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Reader().feed(page)
    assert not opened
    assert "url(" not in page
    for code, paths in faults.items():
        assert f"<code>{code}</code>" in page
        assert all(name in page for name in paths)
        assert code.startswith("file-") or code == "names-collide" or paths <= shown, code


def test_an_archive_that_is_read_in_order_gives_the_same_findings(
    planted: tuple[Path, dict[str, set[str]]], tmp_path: Path
) -> None:
    root, faults = planted
    with tarfile.open(tmp_path / "photos.tar.gz", "w:gz") as archive:
        for folder in sorted(root.iterdir(), reverse=True):
            archive.add(folder, folder.name)
    report = check(tmp_path / "photos.tar.gz")
    for code in torture.FILES:
        assert accused(report, code) == faults[code], code


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_exit_status_says_whether_there_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        path = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        torture.healthy(number).save(path)
    photos = tmp_path / "photos"
    status, out, _ = call(monkeypatch, capsys, "check", photos)
    assert status == 0
    assert "few-images" in out
    assert f"\nnext: ptarmigan train {photos} --time 30m\n" in out
    status, out, _ = call(monkeypatch, capsys, "check", photos, "--fail-on", "warning")
    assert status == 1
    assert "next: " not in out
    (photos / "cat" / "empty.png").write_bytes(b"")
    status, out, _ = call(monkeypatch, capsys, "check", photos, "--split", "none")
    assert status == 1
    assert "cat/empty.png" in out
    assert call(monkeypatch, capsys, "check", tmp_path / "nothing")[0] == 2
    (tmp_path / "there.json").write_text("mine", encoding="utf-8")
    status, _, err = call(monkeypatch, capsys, "check", photos, "--json", tmp_path / "there.json")
    assert status == 2
    assert "file-exists" in err
    assert (tmp_path / "there.json").read_text(encoding="utf-8") == "mine"


def test_lines_fit_the_terminal_and_say_what_to_run_next(
    planted: tuple[Path, dict[str, set[str]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, _ = planted
    for name, value in {"COLUMNS": "60", "TTY_COMPATIBLE": "1", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    report = check(root)
    print_check(report)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 60 or " " not in line.strip() for line in lines)
    assert any(line.startswith("next: ") for line in lines)
    print_check(check(root, fix=tmp_path / "a list.csv"))
    out = " ".join(capsys.readouterr().out.split())
    assert f"wrote {tmp_path / 'a list.csv'}" in out
    assert f"leaves out {len(report.left_out)} files" in out
    assert f"ptarmigan train {root} --labels '{tmp_path / 'a list.csv'}'" in out


def test_many_classes_do_not_fill_the_terminal() -> None:
    lines = [*bars([("cat", 9, 1, 0)] * 50, "#")]
    assert len(lines) == 41
    assert "10 more" in lines[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are Unicode elsewhere")
def test_names_that_are_not_unicode_are_kept_in_json_but_cannot_be_listed(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        torture.healthy(number).save(photos / f"{number}.png")
    os.rename(photos / "0.png", os.fsencode(photos) + b"/\xff.png")
    (photos / os.fsdecode(b"\xfe.png")).write_bytes(b"")
    check(photos, json=tmp_path / "x.json")
    (finding,) = [
        one for one in json.loads((tmp_path / "x.json").read_bytes())["findings"] if one["code"] == "file-empty"
    ]
    assert finding["where"] == [os.fsdecode(b"\xfe.png")]
    with raises("value-invalid", "fix", "\\udcf"):
        check(photos, fix=tmp_path / "x.csv")
    assert not (tmp_path / "x.csv").exists()


def test_a_name_cannot_forge_the_report(tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "<script>alert(1)</script>"[:8]
    folder.mkdir(parents=True)
    for number in range(3):
        torture.healthy(number).save(folder / f"{number}.png")
    (folder / '"><b>x\x1b[31m.png').write_bytes(b"")
    check(tmp_path / "photos", html=tmp_path / "x.html")
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "<b>x" not in page
    assert "\x1b" not in page


def test_arrays_are_checked_too_but_have_no_list(shapes: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), np.uint8)
    images[1], images[2], images[3] = images[0], 7, 7
    report = check(Dataset.from_arrays(images, np.arange(40) % 2))
    assert accused(report, "label-conflict") == {"image 0", "image 1", "image 2", "image 3"}
    assert accused(report, "flat") == {"image 2", "image 3"}
    assert "another class" in report.left_out["image 2"]  # the reason of the more severe finding
    assert not check(shapes).failed
    with raises("options-conflict", "fix", shapes):
        check(shapes, fix=tmp_path / "x.csv")


def test_what_is_not_read_is_a_warning(tmp_path: Path) -> None:
    for number in range(3):
        path = tmp_path / "photos" / "cat" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        torture.healthy(number).save(path)
    torture.healthy(9).save(tmp_path / "outside.png")
    (path.parent / "link.png").symlink_to(tmp_path / "outside.png")
    for path in ("train/cat/0.png", "test/cat/1.png", "test/owl/2.png"):
        (tmp_path / "parts" / path).parent.mkdir(parents=True, exist_ok=True)
        torture.healthy(int(path[-5])).save(tmp_path / "parts" / path)
    found = {f.text: f.severity for f in check(tmp_path / "parts").findings if "1 class, owl" in f.text}
    assert [*found.values()] == ["warning"]
    warnings = [f.text for f in check(tmp_path / "photos").findings if f.code == "notice" and f.severity == "warning"]
    assert any("cat/link.png" in text for text in warnings)


def test_copies_in_the_source_s_own_parts_are_an_error(tmp_path: Path) -> None:
    for number in range(12):
        for part in ("train", "test"):
            path = tmp_path / part / ("cat", "dog")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            torture.healthy(number if number < 2 else number + 50 * (part == "test")).save(path)
    torture.healthy(2).save(tmp_path / "train" / "cat" / "copy.png")  # of train/cat/2.png: this is no leak
    report = check(tmp_path)
    assert accused(report, "leak") == {
        f"{p}/{c}/{n}.png" for p in ("train", "test") for n, c in ((0, "cat"), (1, "dog"))
    }
    assert report.left_out.keys() == {"train/cat/0.png", "train/dog/1.png", "train/cat/copy.png"}


@pytest.mark.parametrize(("side", "is_advised"), [(16, False), (20, True)])
def test_no_size_below_the_least_is_advised(side: int, is_advised: bool) -> None:
    (finding,) = size_findings([(8, 8)], ["a.png"], TargetShape(side, side, 1), {})
    assert ("--size" in finding.remedy) == is_advised


def test_crops_small_images_and_unequal_classes_are_said(tmp_path: Path) -> None:
    for number in range(30):
        path = tmp_path / ("cat", "dog")[number < 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        image = torture.healthy(number, 64)
        (image.resize((64, 128)) if number == 5 else image.resize((20, 20)) if number == 6 else image).save(path)
    report = check(tmp_path, split="none")
    assert accused(report, "cropped") == {"cat/5.png"}
    assert accused(report, "enlarged") == {"cat/6.png"}
    assert accused(report, "imbalance") == {"dog"}
    assert not accused(check(tmp_path, split="none", balance=True), "imbalance")
    assert not accused(check(tmp_path, split="none", fit="pad"), "cropped")


def test_how_much_is_cut_off_and_which_side_is_short_count() -> None:
    def found(height: int, width: int) -> list[tuple[str, str]]:
        findings = size_findings([(height, width)], ["a.png"], TargetShape(64, 64, 3), {"a.png": 0})
        return [(finding.code, finding.severity) for finding in findings]

    assert found(64, 64) == found(64, 65) == []
    assert found(64, 70) == [("cropped", "note")]
    assert found(64, 128) == [("cropped", "warning")]
    assert found(64, 20) == [("cropped", "warning"), ("enlarged", "warning")]


# --- near duplicates -------------------------------------------------------------------------------------------------


def test_the_hash_is_that_of_its_definition() -> None:
    """The 8x8 lowest frequencies of the cosine transform of the grey image, above their median."""
    images = np.stack([np.asarray(torture.healthy(seed, 32)) for seed in range(20)])
    for image, found in zip(images, near.dct_hashes(images, [near.WHOLE])[0], strict=True):
        grey = image @ np.array([0.299, 0.587, 0.114])
        low = dctn(grey, norm="ortho")[:8, :8].ravel()
        expected = np.packbits(low > np.median(low)).view(np.uint64)[0]
        assert np.bitwise_count(expected ^ found) <= 1  # rounding of a value at the median


def test_the_search_finds_all_hashes_that_are_near_and_no_others() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 2**64, 300, np.uint64, endpoint=False)
    flips = np.array(
        [np.bitwise_or.reduce(np.uint64(1) << rng.choice(64, n % 12, False).astype(np.uint64)) for n in range(300)]
    )
    b = a ^ flips
    found = {pair for left, right in near.candidates(a, b) for pair in zip(left.tolist(), right.tolist(), strict=True)}
    distance = np.bitwise_count(a[:, None] ^ b)
    assert found == {*zip(*(axis.tolist() for axis in np.nonzero(distance <= near.MOST_BITS)), strict=True)}


def test_a_crop_s_transform_is_that_of_the_cropped_image() -> None:
    row = np.random.default_rng(0).random(40)
    cropped = near.cosines(36, 16, 0, 1) @ row[2:38]
    np.testing.assert_allclose(near.cosines(40, 16, 0.05, 0.95) @ row, cropped, rtol=1e-4, atol=1e-5)


def test_groups_are_connected_components() -> None:
    pairs = np.array([[7, 8], [0, 3], [3, 5], [5, 9], [8, 9]])
    assert near.groups_of(pairs, 11).tolist() == [0, 1, 2, 0, 4, 0, 6, 0, 0, 0, 10]
    assert near.groups_of(np.empty((0, 2), np.int64), 3).tolist() == [0, 1, 2]
    chain = np.stack([np.arange(99), np.arange(1, 100)], 1)
    assert (near.groups_of(chain[::-1], 100) == 0).all()


def test_colour_tells_images_apart_that_are_equal_in_grey() -> None:
    image = np.asarray(torture.healthy(3, 32))
    assert len(near.near_pairs(np.stack([image, image[..., ::-1]]))) == 0
    brighter = np.clip(image * 1.1, 0, 255).astype(np.uint8)
    assert near.near_pairs(np.stack([image, brighter])).tolist() == [[0, 1]]
    assert near.near_pairs(np.stack([image // 2, image // 2 + 80])).tolist() == [[0, 1]]


def test_of_a_large_set_the_first_images_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptarmigan.data.check.images.MOST_IMAGES", 10)
    images = np.stack([np.asarray(torture.healthy(seed, 32)) for seed in range(16)])
    for at, of in ((5, 2), (15, 12)):
        images[at] = np.clip(images[of] * 0.9, 0, 255)
    report = check(Dataset.from_arrays(images))
    assert accused(report, "near-duplicates") == {"image 2", "image 5"}
    assert [finding.count for finding in report.findings if finding.code == "near-not-looked-for"] == [6]


def test_an_image_is_flat_by_what_it_shows_on_white() -> None:
    images = np.full((3, 16, 16, 4), 255, np.uint8)
    images[0, ..., :3] = np.random.default_rng(0).integers(0, 256, (16, 16, 3))  # hidden, because it is transparent
    images[0, ..., 3] = 0
    images[1, :8, :, 0] = 0
    assert flat_images(images).tolist() == [True, False, True]
    dotted = np.full((2, 16, 16, 1), 100, np.uint8)
    dotted[0, ::8, ::4] = 110  # a deviation of 1.7, although that of every fourth pixel is 5
    dotted[1, 1::4, 1::2] = 110  # one of 3.3, in pixels between these
    assert flat_images(dotted).tolist() == [True, False]


# --- labels ----------------------------------------------------------------------------------------------------------


def test_planted_wrong_labels_are_found_and_copies_do_not_hide_them() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(300) % 3
    features = torch.from_numpy((np.eye(3)[truth] * 4 + rng.normal(size=(300, 3))).astype(np.float32))
    labels = truth.copy()
    labels[[10, 11]] = (truth[[10, 11]] + 1) % 3
    features[11] = features[10]
    labels[11] = labels[10]
    keys = rng.integers(0, 2**63, 300).astype(np.uint64)
    keys[11] = keys[10]
    doubts = doubtful_labels(features, labels, keys)
    assert {10, 11} <= {*doubts.indices.tolist()}
    assert len(doubts.indices) < 10
    assert doubts.better[doubts.indices.tolist().index(10)] == truth[10]
    assert len(doubtful_labels(features, np.zeros(300, np.int64), keys).indices) == 0


def test_labels_of_images_between_two_classes_are_not_doubted() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 2
    features = rng.normal(size=(300, 3)) + 1.5 * labels[:, None] * [1, 0, 0]  # a fifth lies nearer to the other class
    found = doubtful_labels(
        torch.from_numpy(features.astype(np.float32)), labels, rng.integers(0, 2**63, 300, np.uint64)
    )
    assert len(found.indices) < 10


def test_errors_come_first() -> None:
    findings = [Finding("a", "note", "", 9), Finding("b", "error", "", 1), Finding("c", "error", "", 5)]
    assert [finding.code for finding in by_severity(findings)] == ["c", "b", "a"]


def test_train_says_what_is_more_than_a_note(planted: tuple[Path, dict[str, set[str]]], shapes: Path) -> None:
    root, _ = planted
    dataset = open_dataset(root, Data())
    *found, last = summary(dataset, False)
    assert "ptarmigan check" in last
    codes = ("label-conflict", "duplicates", "flat", "few-images")
    worth = {finding.text for finding in check(root).findings if finding.code in codes}
    assert {line.partition(" (")[0] for line in found} == worth
    assert len(worth) == 4
    assert "ptarmigan check" not in str(summary(open_dataset(shapes, Data()), False))


def test_deep_names_planted_wrong_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptarmigan.commands.check.load_extractor", lambda device: random_projection(48))
    rng = np.random.default_rng(0)
    truth = np.arange(240) % 2
    images = rng.integers(0, 90, (240, 16, 16), np.uint8)
    images[truth == 1, :8] += np.uint8(120)
    labels = truth.copy()
    labels[[30, 71]] = 1 - labels[[30, 71]]
    report = check(Dataset.from_arrays(images, labels), deep=True)
    assert accused(report, "label-doubtful") == {"image 30", "image 71"}
    (finding,) = [finding for finding in report.findings if finding.code == "label-doubtful"]
    assert "in 1, looks like 0" in finding.where[0] + finding.where[1]


def test_deep_ends_in_time_and_keeps_what_it_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    extractor, computed = random_projection(48), []
    counting = replace(extractor, network=Counting(extractor.network, computed))
    monkeypatch.setattr("ptarmigan.commands.check.load_extractor", lambda device: counting)
    for module in ("commands.check", "evaluation.features.cache"):
        monkeypatch.setattr(f"ptarmigan.{module}.CACHED", 100)
    monkeypatch.setattr("ptarmigan.commands.check.DEEP_SECONDS", -1)
    images = np.random.default_rng(0).integers(0, 255, (240, 16, 16), np.uint8)
    dataset = Dataset.from_arrays(images, np.arange(240) % 2)

    def sampled() -> list[Finding]:
        return [finding for finding in check(dataset, deep=True).findings if finding.code == "deep-sampled"]

    held_out = len(dataset.indices(HELD_OUT))
    (finding,) = sampled()
    assert finding.count == 240 - held_out
    assert "again" in finding.remedy
    assert sum(computed) == held_out
    monkeypatch.setattr("ptarmigan.commands.check.DEEP_SECONDS", 60)
    assert not sampled()
    assert sum(computed) == 240
    cached_features(counting, dataset, shuffled(dataset.indices(TRAIN))[:100])  # as `score` does
    assert sum(computed) == 240
    monkeypatch.setattr("ptarmigan.commands.check.MOST_JUDGED", 50)
    (finding,) = sampled()
    assert not finding.remedy  # another run would judge no more


class Counting(torch.nn.Module):
    """A network that notes how many images it has seen."""

    def __init__(self, network: torch.nn.Module, seen: list[int]) -> None:
        super().__init__()
        self.network, self.seen = network, seen

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(pixels))
        features: torch.Tensor = self.network(pixels)
        return features


def test_files_that_may_not_be_read_are_told_from_damaged_ones() -> None:
    facts = {"a.png": Failure("Permission denied", ""), "b.png": Failure("broken data stream", "")}
    found = {one.code: one for one in file_findings(facts, 3, [], {})}
    assert [one.where for one in found.values()] == [("a.png",), ("b.png (broken data stream)",)]
    assert "permission" in found["file-forbidden"].remedy
    assert "again" in found["file-undecodable"].remedy
