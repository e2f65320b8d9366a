"""layerwise evaluate: accuracies of a run, by depth and by class, on its test images and on others."""

import csv
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import layerwise
from layerwise.config import Data
from layerwise.data.splits import load_data
from layerwise.parsing import parse
from layerwise.report.tested import by_class, confusions
from layerwise.training.evaluation import Evaluation
from tests.conftest import QUIET, Command, noise


def table(printed: str, first: str = "depth") -> list[dict[str, str]]:
    """The lines of the table whose first column has this name, by column."""
    head, *lines = re.split(rf"(?m)^(?={first} )", printed, maxsplit=1)[1].split("\n\n")[0].splitlines()
    names = re.split(r"  +", head.strip())
    return [dict(zip(names, re.split(r"  +", line.strip()), strict=True)) for line in lines]


@pytest.fixture(scope="module")
def colored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images of bright and dark noise, which lie beside it; for looking only."""
    folder = noise(tmp_path_factory.mktemp("colored"))
    settings = ["--data.name=image_folder", f"--data.root={folder}", "--optimizer.epochs=8"]
    layerwise.train(parse([*QUIET, *settings, "--optimizer.batch_size=16"])[0], folder.parent / "r")
    return folder.parent / "r"


@pytest.fixture
def colors(colored: Path, tmp_path: Path) -> Path:
    """A folder of such images, three of which lie in the wrong class; and a copy of the run."""
    shutil.copytree(colored, tmp_path / "r")
    folder, other = colored.parent / "images", tmp_path / "other"
    for name in ("bright", "dark"):
        shutil.copytree(folder / "train" / name, other / name, ignore=lambda _, names: sorted(names)[10:])
    for i in range(3):
        shutil.copy(folder / "train" / "bright" / f"{i:02}.png", other / "dark" / f"wrong{i}.png")
    return other


def test_evaluate__prints_and_writes_what_the_run_measured(finished: Path, command: Command) -> None:
    done = command("evaluate", "r", "--json=e.json")
    assert done.returncode == 0, done.stderr
    summary, written = (
        json.loads(path.read_text()) for path in (finished / "summary.json", finished.parent / "e.json")
    )
    stack, test = layerwise.load(finished), load_data(Data(), 0).test
    n = len(test)
    assert f"{n} images of the test split of digits, 10 classes" in done.stdout
    for depth, (line, layer, found) in enumerate(
        zip(table(done.stdout), summary["layers"], written["depths"], strict=True)
    ):
        p = layer["test_accuracy"]
        assert line["depth"] == f"{depth + 1}" and found["depth"] == depth + 1
        assert (line["validation"], line["accuracy"]) == (f"{layer['val_accuracy']:.2%}", f"{p:.2%}")
        assert line["± error"] == f"{(p * (1 - p) / n) ** 0.5:.2%}"
        assert found["accuracy"] == pytest.approx(p) and found["val_accuracy"] == pytest.approx(layer["val_accuracy"])
        assert found["standard_error"] == pytest.approx((p * (1 - p) / n) ** 0.5)
        assert line["top 5"] == f"{found['top_5']:.2%}"
        assert line["calibration error"] == f"{found['calibration_error']:.2%}"
    shares = stack.predict_proba(test.pixels)
    likely = shares.topk(5).indices
    assert written["depths"][1]["top_5"] == pytest.approx(
        sum(int(label) in row for label, row in zip(test.labels, likely.tolist(), strict=True)) / n
    )
    counts = Counter(zip(test.labels.tolist(), shares.argmax(1).tolist(), strict=True))
    assert written["confusion"] == [[counts[i, j] for j in range(10)] for i in range(10)]
    assert written["images"] == sum(counts.values()) == n
    classes = table(done.stdout, "class  images")
    for i, (line, found) in enumerate(zip(classes, written["by_class"], strict=True)):
        images = sum(counts[i, j] for j in range(10))
        assert line == {"class": str(i), "images": str(images), "accuracy": f"{counts[i, i] / images:.2%}"}
        assert found == {"class": str(i), "images": images, "accuracy": pytest.approx(counts[i, i] / images)}
    wrong = Counter({pair: count for pair, count in counts.items() if pair[0] != pair[1]})
    confused = table(done.stdout, "class +taken for")
    assert [int(line["images"]) for line in confused] == [count for _, count in wrong.most_common(10)]
    for line in confused:
        assert wrong[int(line["class"]), int(line["taken for"])] == int(line["images"])
        share = int(line["images"]) / written["by_class"][int(line["class"])]["images"]
        assert line["of its class"] == f"{share:.2%}"
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_evaluate__top_of_more_classes(finished: Path, command: Command) -> None:
    assert command("evaluate", "r", "--top=9", "--json=e.json").returncode == 0
    likely = layerwise.load(finished).predict_proba(load_data(Data(), 0).test.pixels).topk(9).indices.tolist()
    found = sum(int(i) in row for i, row in zip(load_data(Data(), 0).test.labels, likely, strict=True)) / len(likely)
    assert json.loads((finished.parent / "e.json").read_text())["depths"][1]["top_9"] == pytest.approx(found)
    for k in ("10", "1", "0"):
        done = command("evaluate", "r", f"--top={k}")
        assert (done.returncode, done.stderr) == (2, f"error: top: {k}, but there are 10 classes; give 2 to 9\n")


def test_evaluate__writes_what_is_said_of_each_image(finished: Path, command: Command) -> None:
    assert command("evaluate", "r", "--predictions=p.csv").returncode == 0
    header, *lines = csv.reader((finished.parent / "p.csv").read_text().splitlines())
    assert header == ["file", "class", "predicted", "probability", "next best", "its probability"]
    test = load_data(Data(), 0).test
    best = layerwise.load(finished).predict_proba(test.pixels).topk(2)
    assert len(lines) == len(test)
    for i, line in enumerate(lines):
        (first, second), (p, q) = best.indices[i].tolist(), best.values[i].tolist()
        assert line[:3] == [str(i), str(int(test.labels[i])), str(first)] and line[4] == str(second)
        assert (float(line[3]), float(line[5])) == pytest.approx((p, q), abs=1e-4)


def test_evaluate__with_mirror_images__is_refused_where_they_show_something_else(
    finished: Path, command: Command
) -> None:
    done = command("evaluate", "r", "--mirror")
    assert done.returncode == 2
    assert re.fullmatch(r"error: mirror: mirrored images may not show their class .*; omit it\n", done.stderr)


def test_evaluate__with_mirror_images__adds_the_logits_of_left_and_right(command: Command, tmp_path: Path) -> None:
    assert command("train", *QUIET, "--depth=2", "--data.flip=true").returncode == 0
    done = command("evaluate", "r", "--mirror", "--json=e.json")
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "e.json").read_text())
    stack, test = layerwise.load(tmp_path / "r").stack, load_data(Data(), 0).test
    x = torch.from_numpy(test.pixels[:].numpy().astype(np.float32)) * 2 / 255 - 1
    for depth, line in enumerate(table(done.stdout), 1):
        part = stack.below(depth + 1)
        logits = {
            name: part(images)[1]
            for name, images in (("as", x), ("mirrored", torch.from_numpy(x.numpy()[..., ::-1].copy())))
        }
        right = [
            float((own.argmax(1) == test.labels).double().mean())
            for own in (logits["as"], logits["as"] + logits["mirrored"])
        ]
        assert [line["accuracy"], line["mirrored"]] == [f"{accuracy:.2%}" for accuracy in right] and right[0] != right[
            1
        ]
        both = written["depths"][depth - 1]["accuracy"], written["mirrored"]["depths"][depth - 1]["accuracy"]
        assert both == pytest.approx(right)
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_evaluate__of_other_images__counts_them_by_their_folders(
    colors: Path, command: Command, tmp_path: Path
) -> None:
    done = command("evaluate", "r", "--images=other", "--json=e.json", "--predictions=p.csv", "--mirror")
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "e.json").read_text())
    assert written["confusion"] == [[10, 0], [3, 10]]  # what is bright is bright, wherever it lies
    assert written["evaluated"] == "other" and written["classes"] == ["bright", "dark"]
    assert written["depths"][0]["accuracy"] == pytest.approx(20 / 23) and "val_accuracy" not in written["depths"][0]
    assert [line["accuracy"] for line in written["by_class"]] == [1, pytest.approx(10 / 13)]
    assert list(table(done.stdout)[0]) == ["depth", "accuracy", "± error", "calibration error", "mirrored"]
    assert table(done.stdout, "class +taken for") == [
        {"class": "dark", "taken for": "bright", "images": "3", "of its class": f"{3 / 13:.2%}"}
    ]
    lines = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    wrong = [line["file"] for line in lines if line["class"] != line["predicted"]]
    assert wrong == ["dark/wrong0.png", "dark/wrong1.png", "dark/wrong2.png"] and len(lines) == 23
    exported = command("export", "r", "card")
    assert exported.returncode == 0 and command("evaluate", "card", "--images=other").returncode == 0


def test_evaluate__of_other_images__says_which_files_are_none(colors: Path, command: Command) -> None:
    (colors / "bright" / "05.png").write_text("x")
    (colors / "loose.png").write_text("x")
    done = command("evaluate", "r", "--images=other", "--predictions=p.csv")
    assert done.returncode == 1
    first, last = done.stderr.splitlines()
    assert first.startswith("images: other/bright/05.png is not a readable image (cannot identify")
    assert last == "error: 1 of 23 files are not readable images, as said above"
    assert "not used, as they lie in no class folder: other/loose.png and 0 more" in done.stdout
    assert "22 images of other, 2 classes" in done.stdout
    lines = list(csv.DictReader((colors.parent / "p.csv").read_text().splitlines()))
    assert len(lines) == 22 and sum(line["class"] != line["predicted"] for line in lines) == 3


def test_evaluate__of_other_images__refuses_what_it_has_no_class_for(colors: Path, command: Command) -> None:
    (colors / "empty").mkdir()
    cases = {"other": r"other/empty is none of the classes bright, dark; rename it or move it away"}
    cases |= {"other/empty": r"other/empty has no images in class folders; .*", "no": "no is not a folder; .*"}
    for given, message in cases.items():
        done = command("evaluate", "r", f"--images={given}")
        assert done.returncode == 2 and re.fullmatch(rf"error: images: {message}\n", done.stderr), done.stderr
    shutil.rmtree(colors / "empty")
    shutil.rmtree(colors / "dark")
    done = command("evaluate", "r", "--images=other", "--json=e.json")  # a class without images
    assert done.returncode == 0 and [line["class"] for line in table(done.stdout, "class +images")] == ["bright"]
    assert json.loads((colors.parent / "e.json").read_text())["by_class"][1] == {
        "class": "dark", "images": 0, "accuracy": None
    }  # fmt: skip
    for path in (colors / "bright").iterdir():
        path.write_text("x")
    done = command("evaluate", "r", "--images=other")
    assert done.returncode == 2 and "no file under other is a readable image" in done.stderr


def test_by_class__of_many_shows_the_lowest() -> None:
    # class i of 30 has i + 1 images, one of which is taken for the next class
    labels = torch.cat([torch.full((i + 1,), i) for i in range(30)])
    ranked = torch.stack([labels, (labels + 1) % 30], 1)
    first = torch.tensor([0] + (labels.diff().nonzero()[:, 0] + 1).tolist())
    ranked[first] = ranked[first].flip(1)
    tested = Evaluation(labels, ranked[None], torch.full((1, len(labels), 2), 0.5), 30)
    names = [f"{'long' * 9}{i}" for i in range(30)]
    title, rows = by_class(tested, names)
    assert title == "accuracy by class, at depth 1: the 10 lowest of 30 classes"
    assert [row[1:] for row in rows[1:]] == [(str(i + 1), f"{i / (i + 1):.2%}") for i in range(10)]
    assert {row[0] for row in rows[1:]} == {"longlonglonglonglonglon…"}
    title, rows = confusions(tested, names)
    assert title == "most frequent confusions, at depth 1: 10 of 30" and len(rows) == 11


def test_evaluate__of_a_folder_without_a_run(command: Command) -> None:
    done = command("evaluate", "nowhere")
    assert (done.returncode, done.stderr[:31]) == (2, "error: RUN: nowhere is not a ru")
    assert done.stderr.count("\n") == 1


def test_evaluate__of_moved_and_of_changed_images(command: Command, folder: Path, tmp_path: Path) -> None:
    settings = [
        "--config=plain_digits",
        "--data.name=image_folder",
        f"--data.root={folder}",
        "--run_dir=r",
        "--wandb.mode=disabled",
    ]
    settings += ["--layer.atoms=4", "--layer.channels=2", "--optimizer.epochs=1", "--optimizer.batch_size=16"]
    assert command("train", *settings).returncode == 0
    before = command("evaluate", "r")
    folder.rename(tmp_path / "moved")
    gone = command("evaluate", "r")
    assert gone.returncode == 2
    assert re.fullmatch(r"error: data\.root: .*images is not a folder; .*\n", gone.stderr), gone.stderr
    moved = command("evaluate", "r", "--data.root=moved")
    assert moved.returncode == 0 and table(moved.stdout) == table(before.stdout) != []
    (tmp_path / "moved" / "train" / "dark" / "00.png").unlink()
    changed = command("evaluate", "r", "--data.root=moved")
    assert changed.returncode == 2
    assert re.fullmatch(
        r"error: data\.root: moved does not hold the data that r was trained on \(1 removed\); .*\n", changed.stderr
    ), changed.stderr
