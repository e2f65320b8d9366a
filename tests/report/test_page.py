"""report.html: what it says, and how it looks in a browser."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from layerwise.cli import main
from layerwise.data.splits import DataSet
from layerwise.report.page import write_report
from layerwise.report.summary import summarize
from layerwise.run.run import Run
from layerwise.training.evaluation import Evaluation, evaluate

BROWSER = next((found for name in ("chromium", "google-chrome", "chrome") if (found := shutil.which(name))), None)
NAMES = ["$5_$10", "<b>x</b>", "x" * 200, "שלום עולם", "a & \"b\" 'c'", "漢字", "{{ 7 * 7 }}", "%s", "8", "9"]
CPU = torch.device("cpu")


def text_of(page: str) -> str:
    """What a reader sees of a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


@pytest.fixture(scope="module")
def named(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, DataSet, Evaluation]:
    """A run whose classes have odd names, written anew; for looking only."""
    run = Run(shutil.copytree(trained, tmp_path_factory.mktemp("named") / "r"))
    stack, records = run.stack(), [replace(record, classes=NAMES) for record in run.records]
    data = run.data()
    data = DataSet(NAMES, data.train, data.val, data.test, data.augmentation)
    tested = evaluate(stack, data.test, CPU)
    write_report(run, stack, records, data, tested, summarize(records, tested, data, "stopped, since <i>so</i>"))
    return run, data, tested


def test_report__tells_what_came_out_of_a_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (finished / "report.html").unlink()
    (finished / "layer-2-answers.png").unlink()
    main(["report", str(finished)])
    assert capsys.readouterr().out.splitlines()[-1] == str(finished / "report.html")
    page = (finished / "report.html").read_text(encoding="utf-8")
    path = str(finished)
    assert page.count(path) == 3  # what to do with it
    run, said = Run(finished), text_of(page)
    tested = evaluate(run.stack(), run.data().test, CPU)
    assert f"{100 * tested.accuracies[1]:.2f}% of the test images are classified correctly at depth 2" in said
    for record, accuracy in zip(run.records, tested.accuracies, strict=True):
        shape = "×".join(map(str, record.output_shape))
        row = f"{record.layer} 16 {record.settings[f'layer {record.layer}']['patch_size']}"
        accuracies = [record.best["train_accuracy"], record.val_accuracy, accuracy]
        figures = " ".join(f"{100 * value:.2f}" for value in accuracies)
        assert re.search(rf"{row}×\d {shape} {figures} {record.seconds:.1f} {record.advice}", said)
    counts = [len(split) for split in (run.data().train, run.data().val, run.data().test)]
    assert f"10 classes; {counts[0]} training, {counts[1]} validation, {counts[2]} test images" in said
    assert "Nearest recipe: plain_digits" in said and re.search(r"layer\.atoms 16 \d+", said)
    assert page.count("<svg") == 4 and "layer-2" not in page
    assert page.count("data:image/png") == 2 + 1 + page.count("<li>")


def test_report__of_a_training_that_is_not_done__says_so(finished: Path) -> None:
    shutil.rmtree(finished / "layer-2")
    assert main(["report", str(finished)]) == 0
    said = text_of((finished / "report.html").read_text(encoding="utf-8"))
    assert "The training has not come to its end: of 2 layers 1 is finished." in said
    assert "as deep as it was asked to be" not in said and "Finished" not in said and "Command" not in said


def test_report__shows_names_as_they_are__and_asks_nobody(named: tuple[Run, DataSet, Evaluation]) -> None:
    page = (named[0].path / "report.html").read_text(encoding="utf-8")
    assert "<b>x</b>" not in page and "<i>so" not in page and "49" not in re.findall(r"<bdi[^>]*>([^<]*)", page)
    said = text_of(page)
    for name in NAMES:
        assert name in said
    assert "stopped, since <i>so</i>" in said
    assert "<script" not in page and not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert not re.findall(r"https?://(?!www\.w3\.org/)", page)


def test_report__shows_the_surest_mistakes_with_their_classes(named: tuple[Run, DataSet, Evaluation]) -> None:
    run, data, tested = named
    page = (run.path / "report.html").read_text(encoding="utf-8")
    mistakes = page[page.index("The surest mistakes") : page.index("The surest hits")]
    shares = tested.shares[1, :, 0] * (tested.ranked[1, :, 0] != data.test.labels)
    expected = []
    for i in shares.argsort(descending=True)[:12].tolist():
        names = NAMES[int(tested.ranked[1, i, 0])], NAMES[int(data.test.labels[i])]
        expected.append((*names, f"{100 * float(shares[i]):.1f}%"))
    found = [
        tuple(html.unescape(text) for text in re.findall(r">([^<>]+)</(?:bdi|span)>", item) if text != "not")
        for item in mistakes.split("<li>")[1:]
    ]
    assert found == expected
    # every image of the gallery is of 8×8 pixels, twelve each
    assert mistakes.count("data:image/png") == 12


WRAPPER = """<!doctype html><meta charset="utf-8"><body><script>
const frame = document.createElement("iframe"); frame.style.width = "WIDTHpx"; frame.style.height = "900px";
frame.onload = () => {
  const page = frame.contentDocument, wide = [];
  for (const one of page.querySelectorAll("body *")) {
    const box = one.getBoundingClientRect();
    const scrolls = one.closest(".wide, pre, svg, .name");
    if (!scrolls && box.width && box.right > WIDTH + 1) wide.push(one.outerHTML.slice(0, 80));
  }
  const entries = frame.contentWindow.performance.getEntriesByType("resource");
  const asked = entries.map(r => r.name).filter(n => !n.startsWith("data:"));
  const style = frame.contentWindow.getComputedStyle(page.body);
  const found = {wide, asked, scroll: page.documentElement.scrollWidth, paper: style.backgroundColor, ink: style.color,
    pictures: [...page.images].filter(i => i.naturalWidth > 0).length, images: page.images.length};
  const answer = document.createElement("pre"); answer.id = "answer"; answer.textContent = JSON.stringify(found);
  document.body.append(answer);
};
frame.srcdoc = PAGE; document.body.append(frame);
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_report__in_a_browser__fits_and_is_quiet(
    named: tuple[Run, DataSet, Evaluation], tmp_path: Path, width: int, scheme: str
) -> None:
    page = (named[0].path / "report.html").read_text(encoding="utf-8")
    literal = json.dumps(page).replace("</", "<\\/")
    wrapper = WRAPPER.replace("WIDTH", str(width)).replace("PAGE", literal)
    (tmp_path / "wrapper.html").write_text(wrapper, "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
    options += ["--enable-logging=stderr", "--dump-dom", "--virtual-time-budget=3000"]
    options += [f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"]
    assert BROWSER is not None
    run = subprocess.run(
        [BROWSER, *options, f"file://{tmp_path}/wrapper.html"], capture_output=True, text=True, timeout=60
    )
    assert "CONSOLE" not in run.stderr
    match = re.search(r'<pre id="answer">(.*?)</pre>', run.stdout, re.DOTALL)
    assert match, run.stderr[-2000:]
    found = json.loads(html.unescape(match[1]))
    assert found["wide"] == [] and found["asked"] == [] and found["scroll"] <= width
    assert found["pictures"] == found["images"] > 10
    assert (found["paper"], found["ink"]) == {
        "light": ("rgb(255, 255, 255)", "rgb(36, 41, 47)"),
        "dark": ("rgb(20, 23, 28)", "rgb(221, 227, 234)"),
    }[scheme]
