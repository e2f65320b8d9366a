"""The paper's tables, by one command each."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from layerwise.config import Config, SettingError, SingleLayer
from layerwise.data.splits import load_data
from layerwise.experiments.paper import job
from layerwise.experiments.paper.cnn import EndToEnd, layers_of
from layerwise.experiments.paper.peers import PEERS
from layerwise.experiments.paper.reproduce import Result, check_sweep, configured, markdown, outcome, reproduce, rows_at
from layerwise.experiments.paper.tables import TABLES, Row, small
from layerwise.nn.layer import shape_through
from layerwise.parsing import parse
from layerwise.run.files import SEAL, write_sealed
from layerwise.run.run import Run
from layerwise.training.depth import check_fit
from tests.conftest import Command

QUICK = ["--data.name=digits", "--optimizer.epochs=1", "--layer.atoms=16", "--layer.neighbors=4", "--layer.channels=8"]
QUICK += ["--layers.1.neighbors=4", "--layers.1.patch_size=3", "--layers.1.pool=1", "--layer.sampling.patches=2000"]
QUICK += ["--layer.patch_size=1", "--wandb.mode=disabled"]

FOLDER = ["--data.name=image_folder", "--wandb.mode=disabled"]


@pytest.mark.parametrize("scale", ["full", "small"])
@pytest.mark.parametrize("name", TABLES)
def test_every_row__is_a_configuration_with_a_run_directory_of_its_own(name: str, scale: str) -> None:
    rows = rows_at(TABLES[name], scale)
    runs = configured(rows, f"{name}-{scale}", 1, [])
    jobs = [job for seeds in runs.values() for job in seeds]
    configs = [job.config for job in jobs]
    assert len({config.run_dir for config in configs}) == len(configs) == len(runs) > 1
    assert all(config.optimizer.epochs == (200 if scale == "full" else 10) for config in configs)
    different = {
        repr((job.config.layer, job.config.layers, job.config.optimizer, job.config.depth, job.end_to_end))
        for job in jobs
    }
    assert len(different) == len(runs)
    for row in rows:
        assert all(job.config.deepest >= row.depth for job in runs[row.stack or row.name])
    for config in configs:
        check_fit(config, (3, 32, 32), 50_000)


def test_peers__fit_images_and_each_other__and_get_our_recipe_s_seconds() -> None:
    runs = configured(PEERS.rows, "peers", 2, [], PEERS.recipe)
    assert [len(jobs) for jobs in runs.values()] == [2] * len(runs)
    ours = runs["our recipe"]
    recipe = parse(["--config=cifar10", "--depth=3"])[0]
    assert [ours[0].config.layer_at(n) for n in (1, 2, 3)] == [recipe.layer_at(n) for n in (1, 2, 3)]
    for name, jobs in runs.items():
        for other, own in zip(jobs, ours, strict=True):
            for side in (28, 32, 64, 96):
                check_fit(other.config, (3, side, side), 45_000)
            depth = int(name[-1]) if "end to end, depth" in name else 3
            assert other.paced == (None if name == "our recipe" else (own, depth))
            assert other.config.seed == own.config.seed and other.config.data == own.config.data
            if other.end_to_end:
                assert not other.config.layer.mirror
                network = EndToEnd(layers_of(other.config), (3, 32, 32), 10).network
                kernels = [part.kernel_size[0] for part in network if isinstance(part, torch.nn.Conv2d)]
                assert sum(side > 1 for side in kernels) == other.config.depth
    sizes = {name: jobs[0].config.layer_at(1) for name, jobs in runs.items()}
    triangle = sizes["triangle k-means, quadrants (Coates & Ng)"]
    assert shape_through(triangle, (3, 32, 32)) == (triangle.atoms, 2, 2)
    with pytest.raises(SettingError, match="^--scale: peers has one size only; omit it"):
        reproduce("peers", "small", 1, None, [])


def test_table_4__has_four_depths_of_each_model__stacks_are_trained_once() -> None:
    rows = rows_at(TABLES["table4"], "small")
    runs = configured(rows, "table4-small", 1, [])
    assert len(rows) == 16
    assert {name: jobs[0].config.depth for name, jobs in runs.items()} == {
        "Φ_full": 4,
        "Φ_hard": 4,
        "CNN layer by layer": 4,
        **{f"CNN end to end, depth {depth}": depth for depth in range(2, 5)},
    }
    assert [jobs[0].end_to_end for jobs in runs.values()] == [False] * 3 + [True] * 3
    full = runs["Φ_full"][0].config
    assert [full.layer_at(number).k for number in range(1, 5)] == [64, 32, 32, 32]
    assert [full.layer_at(number).patch_size for number in range(1, 5)] == [5, 3, 3, 3]
    assert [full.layer_at(number).pool for number in range(1, 5)] == [2, 1, 1, 1]
    assert [full.layer_at(number).norm.kind for number in range(1, 5)] == ["batch", "none", "none", "none"]


def test_small__is_a_quarter__and_leaves_out_what_has_no_neighbor() -> None:
    settings = {"layer.atoms": 256, "layers.1.neighbors": 64, "layer.sampling.patches": 65_536, "optimizer.epochs": 10}
    assert small({}, 4) == settings | {"layer.neighbors": 32, "features.views": 10}
    assert small({"layers.1.neighbors": 2}, 4) is None
    assert small({"layer.atoms": 256, "layers.1.neighbors": 64}, 4)["layers.1.neighbors"] == 64  # type: ignore[index]
    assert [row.name for row in rows_at(TABLES["figure8"], "small")][:2] == ["k = 1", "k = 2"]
    figure9 = rows_at(TABLES["figure9"], "small")
    assert [row.name for row in figure9] == [f"N = {n}" for n in (64, 128, 256, 512, 1024)]
    assert [row.settings["layers.1.neighbors"] for row in figure9] == [16, 32, 64, 128, 256]
    assert not any("optimizer.learning_rate" in row.settings for row in figure9)  # points differ in nothing but size


def test_table_3__both_is_table_1s_best_row__batch_norm_goes_with_pooling() -> None:
    runs = configured(rows_at(TABLES["table3"], "full"), "table3-full", 1, [])
    best = configured(rows_at(TABLES["table1"], "full"), "table1-full", 1, [])["Φ_full, data patches"][0].config
    assert runs["both"][0].config.layer_at(1) == best.layer_at(1)
    layers = {name: jobs[0].config.layer_at(1) for name, jobs in runs.items()}
    assert {name: (layer.pool, layer.norm.kind, layer.channels) for name, layer in layers.items()} == {
        "neither": (1, "none", None),
        "average pooling": (4, "batch", None),
        "bottleneck": (1, "none", 32),
        "both": (4, "batch", 32),
    }


def single_layers(table: str) -> dict[str, SingleLayer]:
    """The first layer of each row, at the paper's size."""
    runs = configured(rows_at(TABLES[table], "full"), f"{table}-full", 1, [])
    return {name: jobs[0].config.layer_at(1) for name, jobs in runs.items()}


def test_table_1__has_the_paper_s_numbers() -> None:
    assert {row.name: row.paper for row in TABLES["table1"].rows} == {
        "Φ_full, data patches": 81.23,
        "vanilla CNN": 80.08,
        "Φ_hard, data patches": 78.80,
        "Φ_full, random patches": 76.04,
        "Φ_hard, random patches": 71.36,
    }
    kinds = {
        "Φ_full, data patches": ("full", "kmeans", "nearest"),
        "vanilla CNN": ("full", "sampled", "relu"),
        "Φ_hard, data patches": ("hard", "kmeans", "nearest"),
        "Φ_full, random patches": ("full", "kmeans_gaussian", "nearest"),
        "Φ_hard, random patches": ("hard", "kmeans_gaussian", "nearest"),
    }
    for name, layer in single_layers("table1").items():
        kind, optimizer = kinds.pop(name), layer.optimizer
        assert (layer.embedding, layer.dictionary, layer.gate.kind) == kind
        assert (layer.atoms, layer.k, layer.patch_size, layer.pool, layer.sample) == (1024, 256, 5, 4, 262_144)
        assert (layer.channels, layer.norm.kind, layer.maps.kind) == (32, "batch", "raw")
        assert (optimizer.name, optimizer.momentum, optimizer.learning_rate) == ("sgd", 0.9, 0.003)
        assert (optimizer.epochs, optimizer.batch_size, optimizer.weight_decay) == (200, 64, 0)


def test_table_2__has_the_paper_s_sizes_and_rates() -> None:
    rates = {"simple": ("unconstrained", 1e-5), "constrained": ("linear", 1e-3)}
    for name, layer in single_layers("table2").items():
        probe, rate = rates.pop(name)
        assert (layer.atoms, layer.k, layer.sample, layer.optimizer.batch_size) == (256, 64, 65_536, 32)
        assert (layer.pool, layer.norm.kind, layer.channels) == (1, "none", None)
        assert (layer.probe.kind, layer.optimizer.learning_rate) == (probe, rate)


def test_table_4__has_the_paper_s_neighbors_at_full_size() -> None:
    runs = configured(rows_at(TABLES["table4"], "full"), "table4-full", 1, [])
    for name, embedding in (("Φ_full", "full"), ("Φ_hard", "hard")):
        layers = [runs[name][0].config.layer_at(number) for number in range(1, 5)]
        assert [layer.k for layer in layers] == [256, 128, 128, 128]
        assert {(layer.atoms, layer.channels, layer.embedding) for layer in layers} == {(1024, 32, embedding)}
    assert runs["CNN layer by layer"][0].config.layer_at(3).gate.kind == "relu"


def test_figures__have_the_paper_s_points() -> None:
    layers = single_layers("figure8")
    assert list(layers) == [f"k = {2**exponent}" for exponent in range(11)]
    for name, layer in layers.items():
        assert (f"k = {layer.k}", layer.atoms, layer.sample) == (name, 1024, 262_144)
    sizes = [1024, 2048, 4096, 8192, 16_384]
    for atoms, (name, layer) in zip(sizes, single_layers("figure9").items(), strict=True):
        assert name == f"N = {atoms}"
        assert (layer.atoms, layer.k, layer.sample) == (atoms, atoms // 4, 256 * atoms)
        assert layer.optimizer.learning_rate == (0.001 if atoms == 16_384 else 0.003)


def test_outcome__is_mean_and_deviation_of_its_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [job.Job(Config(seed=seed)) for seed in range(3)]
    known = {0: [0.5, 0.7], 1: [0.5, 0.8], 2: [0.5, 0.9]}
    monkeypatch.setattr(job.Job, "tested", lambda own: known[own.config.seed])
    monkeypatch.setattr(job.Job, "seconds", lambda own, depth: 10.0 * depth + own.config.seed)
    result = outcome(Row("a row", {}, 81.0, depth=2), runs)
    assert (round(result.mean, 9), round(result.std or 0, 9), result.seeds) == (80, 10, 3)
    assert (result.row, result.paper, result.seconds) == ("a row", 81.0, 63.0)
    assert outcome(Row("a row", {}, depth=1), runs[:1]) == Result("a row", 50, None, 1, None, 10.0)


def test_figure__is_drawn_from_its_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    rows = TABLES["figure8"].rows
    two = replace(TABLES["figure8"], rows=[row for row in rows if row.settings["layers.1.neighbors"] in (4, 16)])
    monkeypatch.setitem(TABLES, "figure8", two)
    quick = [argument for argument in QUICK if "neighbors" not in argument]
    results = reproduce("figure8", "small", 1, "rows.json", quick)
    assert [result.row for result in results] == ["k = 1", "k = 4"]
    (picture,) = tmp_path.glob("runs/figure8-small-digits/*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [row["row"] for row in json.loads(Path("rows.json").read_text())] == ["k = 1", "k = 4"]


def test_paper__leaves_a_run_to_the_process_that_trains_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    rows = TABLES["table2"].rows
    monkeypatch.setitem(TABLES, "table2", replace(TABLES["table2"], rows=rows[1:]))
    quick = [argument for argument in QUICK if "epochs" in argument or "digits" in argument or "patch" in argument]
    (own,) = configured(rows_at(TABLES["table2"], "small"), "table2-small", 1, quick)["constrained"]
    other = Run(own.folder)
    other.start(own.config, load_data(own.config.data, 0))  # the lock is the same as another process'
    with pytest.raises(SettingError, match="another process still trains 1 of the runs"):
        reproduce("table2", "small", 1, None, quick)
    other.release()
    (result,) = reproduce("table2", "small", 1, None, quick)
    assert result.row == "constrained" and result.seconds > 0


def test_images_of_another_folder__are_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = [
        configured(rows_at(TABLES["table1"], "small")[:1], "table1-small", 1, [f"--data.root={root}", *FOLDER])
        for root in (tmp_path / "a", tmp_path / "b")
    ]
    first, second = (runs["vanilla CNN"][0] for runs in configs)
    names = [
        re.fullmatch(r"runs/table1-small-(a|b)-[0-9a-f]{6}/vanilla-cnn-seed0", str(own.folder))
        for own in (first, second)
    ]
    assert [name and name[1] for name in names] == ["a", "b"]
    monkeypatch.chdir(tmp_path)
    relative = configured(rows_at(TABLES["table1"], "small")[:1], "table1-small", 1, ["--data.root=a", *FOLDER])
    assert relative["vanilla CNN"][0].folder == first.folder
    same = replace(second.config, run_dir=first.config.run_dir)
    assert job._deciding(first.config) != job._deciding(same)


def test_markdown__has_mean_and_deviation_beside_the_paper() -> None:
    results = [Result("Φ_full", 81.234, 0.15, 3, 81.23, 12.3), Result("Φ_hard", 70, None, 1, None, 5)]
    lines = markdown(TABLES["table1"], results).splitlines()
    assert lines[-2:] == ["| Φ_full | 81.23 ± 0.15 | 81.23 | 12 |", "| Φ_hard | 70.00 |  | 5 |"]


def test_paper__trains_each_row_once_and_writes_the_table(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = [row for row in TABLES["table1"].rows if row.name in ("vanilla CNN", "Φ_hard, data patches")]
    monkeypatch.setitem(TABLES, "table1", replace(TABLES["table1"], rows=two))
    first = command("paper", "table1", "--seeds", "2", "--json", "rows.json", *QUICK)
    assert first.returncode == 0, first.stderr
    assert "4 runs to train" in first.stdout and "by a rehearsal" in first.stdout
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [set(row) for row in rows] == [{"row", "mean", "std", "seeds", "paper", "seconds"}] * 2
    assert [row["paper"] for row in rows] == [80.08, 78.80]
    assert all(0 < row["mean"] <= 100 and row["seeds"] == 2 and row["std"] >= 0 for row in rows)

    again = command("paper", "table1", "--seeds", "2", *QUICK)
    assert "to train" not in again.stdout
    monkeypatch.chdir(tmp_path)
    rows_of_it = rows_at(TABLES["table1"], "small")
    for arguments, same in ((QUICK, True), ([*QUICK, "--data.crop=1"], False)):  # other data are not taken for these
        runs = configured(rows_of_it, "table1-small", 2, arguments)
        assert all((own.tested() is not None) == same for jobs in runs.values() for own in jobs)
    run = configured(rows_of_it, "table1-small", 2, QUICK)["vanilla CNN"][0]
    written = run.folder / "config.yaml"
    settings = written.read_text()
    older = settings.replace("  label_smoothing: 0.0\n", "").partition(SEAL)[0]
    write_sealed(written, older)  # as a version without that setting wrote it
    assert written.read_text() != settings and run.tested() is not None
    written.write_text("layer: {atoms: many}\n")
    assert run.tested() is None  # the run is gone through again, and the file written anew
    written.write_text(settings)
    changed = command("paper", "table1", "--seeds", "2", *QUICK, "--optimizer.momentum=0.5")
    assert changed.returncode == 2 and "momentum" in changed.stderr

    table = again.stdout.strip()
    assert table.count("|\n") >= 3 and first.stdout.rstrip().endswith(table)


@pytest.mark.slow
def test_paper__stacks_and_networks_of_table_4(command: Command, tmp_path: Path) -> None:
    done = command("paper", "table4", "--json", "rows.json", *QUICK, "--layers.1.patch_size=2")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert len(rows) == 16 and "6 runs to train" in done.stdout
    assert [row["row"] for row in rows[:4]] == [f"Φ_full, depth {depth}" for depth in range(1, 5)]
    assert all(a["seconds"] < b["seconds"] for a, b in zip(rows[:3], rows[1:4], strict=True))


def test_check_sweep__takes_values_for_no_names() -> None:
    check_sweep(1, ["--wandb.name", "depth", "--wandb.group=seed", "--layer.atoms", "3"], ("depth",))
    for given in (["--depth", "3"], ["--depth=3"], ["--seed", "1"], ["--run_dir=r"], ["--layers.2.atoms", "3"]):
        with pytest.raises(SettingError, match=rf"^{given[0][2:].split('=')[0]}: each run here has its own"):
            check_sweep(1, given, ("depth", "layer.atoms"))


def test_paper__errors_name_what_was_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seeds, arguments, message in (
        (0, QUICK, "--seeds: 0 is too few; give 1 or more"),
        (1, [*QUICK, "--layer.atmos=3"], "layer.atmos: there is no such setting"),
        (1, [*QUICK, "--seed=3"], "^seed: each run here has its own"),
        (1, [*QUICK, "--depth", "3"], "^depth: each run here has its own"),
        (1, [*QUICK, "--config=configs/cifar10.yaml"], "^config: each run here has its own"),
        (1, [*QUICK, "--layer.embedding=hard"], "^layer.embedding: each run here has its own"),
        (1, [*QUICK, "--layers.1.dictionary", "sampled"], "^layers.1.dictionary: each run here has its own"),
        (1, [*QUICK, "--layer={embedding: full}"], "^layer: each run here has its own"),
        (1, [*QUICK, "--layers", "{1: {dictionary: sampled}}"], "^layers: each run here has its own"),
        (1, [*QUICK, "--layers.1={dictionary: sampled}"], "^layers.1: each run here has its own"),
        (1, [*QUICK, "--trainer.accelerator=gpu"], "trainer.accelerator: gpu, but torch finds none"),
        (1, [*QUICK, "--layer.maps.kind=rwa"], "layer.maps.kind: rwa is not one of whitened, raw"),
        (1, [*QUICK, "--layer.patch_size=9", "--layers.1.patch_size=9"], "patch_size: 9 does not fit"),
    ):
        with pytest.raises(SettingError, match=message):
            reproduce("table1", "small", seeds, None, arguments)
    assert not any(tmp_path.iterdir())
