"""The page that compares runs."""

import re
import shutil
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import layerwise
from layerwise.cli import main
from layerwise.parsing import parse
from layerwise.run.files import read_record, write_record
from layerwise.run.run import Run
from tests.conftest import QUIET
from tests.report.test_page import text_of


def test_comparison__joins_seeds_and_names_what_differs(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "r")
    for name, options in {"other seed": ["--seed=1"], "few": ["--layer.atoms=8"]}.items():
        layerwise.train(parse(["--depth=1", *QUIET, *options])[0], Path(name))
    capsys.readouterr()
    main(["report", "r", "other seed", "few", "--out", "all.html"])
    assert capsys.readouterr().out == "all.html\n"
    page = Path("all.html").read_text(encoding="utf-8")
    said, runs = text_of(page), [Run(name) for name in ("r", "other seed", "few")]
    first = [100 * run.records[0].val_accuracy for run in runs]
    mean, deviation = statistics.mean(first[:2]), abs(first[0] - first[1]) / 2**0.5
    assert f"1 {mean:.2f} ± {deviation:.2f}" in said and f"1 {first[2]:.2f}" in said
    assert f"2 {100 * runs[0].records[1].val_accuracy:.2f}" in said
    assert re.search(r"r seed 0 other seed seed 1 1 ", said) and re.search(r"few seed 0 1 ", said)
    assert re.findall(r'href="([^"]*\.html)"', page) == ["r/report.html", "other%20seed/report.html", "few/report.html"]
    differs = page[page.index("What differs") : page.index("Settings that all")]
    assert re.findall(r"<code>([^<]*)", differs) == ["layer.atoms"]
    assert text_of(differs).startswith("What differs setting row 1 row 2 layer.atoms 16 8")


def test_comparison__counts_seconds_of_runs_that_are_so_deep__and_tells_other_images_apart(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "r")
    pixels = np.random.default_rng(0).integers(0, 256, (80, 8, 8), np.uint8)
    labels = [0, 1] * 40
    layerwise.train(parse(["--depth=1", *QUIET, "--seed=1"])[0], Path("shallow"))
    path = Path("shallow") / "layer-1" / "layer.json"
    write_record(path, read_record(path) | {"seconds": 1000.0})
    small = parse(["--depth=1", *QUIET, "--optimizer.batch_size=16"])[0]
    for name, images, seed in (("a", pixels, 0), ("b", pixels, 1), ("c", 255 - pixels, 0)):
        layerwise.train(replace(small, seed=seed), Path(name), layerwise.dataset(images, labels, seed=seed))
    main(["report", "r", "shallow", "a", "b", "c", "--out", "all.html"])
    said = text_of(Path("all.html").read_text(encoding="utf-8"))
    deep, shallow = (Run(name).records for name in ("r", "shallow"))
    first, both = (deep[0].seconds + shallow[0].seconds) / 2, sum(record.seconds for record in deep)
    assert first > 500 > both
    assert re.search(rf"r seed 0 shallow seed 1 1 .* {first:.0f} 2 .* {both:.0f} 2 a", said)
    assert re.search(r"2 a seed 0 b seed 1 1 .* 3 c seed 0", said)


def test_comparison__refuses_a_run_that_is_given_twice_or_has_no_layer(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(trained), str(trained), "--out", str(tmp_path / "c.html")]) == 2
    assert "given twice" in capsys.readouterr().err
    assert main(["report", str(trained), str(tmp_path), "--out", str(tmp_path / "c.html")]) == 2
    assert "is not a run directory" in capsys.readouterr().err
    assert main(["report", str(trained), "--out", str(tmp_path / "c.html")]) == 2
    assert "--out: is for several runs" in capsys.readouterr().err
    assert not (tmp_path / "c.html").exists()
