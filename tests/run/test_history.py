"""What a run has logged, on file."""

from pathlib import Path

from layerwise.run.history import History, Row, forget


def row(folder: str, axis: str, at: int, **values: float | None) -> Row:
    return Row(folder, 3, axis, at, dict(values))


def filled(folder: Path, *rows: Row) -> History:
    history = History(folder)
    for each in rows:
        history.add(each)
    return history


def test_history__is_read_as_it_was_written__but_for_a_line_that_a_kill_cut_off(tmp_path: Path) -> None:
    filled(tmp_path, row("a", "layer1/step", 4, loss=0.5), row("a", "layer1/step", 9, loss=0.25, atoms=None))
    path = tmp_path / "history.jsonl"
    path.write_text(path.read_text() + '[1]\n{"folder": 1}\n{"folder": "a", "axis": "layer1/step", "at": 14, "val')
    history = History(tmp_path)
    assert history.of("loss") == [0.5, 0.25] and history.of("atoms") == []
    assert history.has("loss", 4) and history.has("atoms", 9) and not history.has("atoms", 4)
    assert (history.last("layer1/step"), history.last("layer2/step")) == (9, 0)
    assert History(tmp_path / "nowhere").of("loss") == []


def test_move__takes_numbers_along__and_forgets_pictures__but_of_what_was_sent(tmp_path: Path) -> None:
    sent = row("a", "layer1/step", 4, loss=0.5, maps=None)
    mixed, picture = row("b", "layer1/step", 9, loss=0.25, maps=None), row("b", "layer1/step", 9, atoms=None)
    last = row("c", "summary/depth", 1, accuracy=0.75)
    moved = filled(tmp_path, sent, mixed, picture, last).move("d", 7, lambda found: found.folder == "a")
    assert moved == [Row("d", 7, "layer1/step", 9, {"loss": 0.25}), Row("d", 8, "summary/depth", 1, {"accuracy": 0.75})]
    history = History(tmp_path)
    assert history.has("maps", 4) and not history.has("maps", 9) and not history.has("atoms", 9)
    assert history.move("e", 0, lambda found: found.folder in ("a", "d")) == []


def test_forget__leaves_what_lower_layers_logged__and_no_id(tmp_path: Path) -> None:
    rows = [row("a", f"layer{i}/step", 4, loss=i) for i in (1, 2, 10)]
    rows += [row("a", "summary/depth", i, accuracy=i) for i in (1, 2)] + [row("a", "layer1/step", 0)]
    filled(tmp_path, *rows)
    (tmp_path / "run-id").touch()
    forget(tmp_path, 2)
    history = History(tmp_path)
    assert history.of("loss") == [1] and history.of("accuracy") == [1] and history.folders == {""}
    assert not (tmp_path / "run-id").exists()
    forget(tmp_path / "nowhere", 1)
