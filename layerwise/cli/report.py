"""The report page of a run, or one that compares several."""

import json
from contextlib import suppress

from layerwise.cli import Options


def main(arguments: list[str]) -> None:
    """Draw it anew, and say where it is."""
    options = Options("report", __doc__)
    options.add_argument("runs", metavar="RUN", nargs="+", help="a run directory, such as runs/digits-seed0")
    options.add_argument("--data.root", dest="root", metavar="FOLDER", help="of the data, if it has moved since")
    options.add_argument("--out", metavar="FILE", help="of several runs, the page; default: comparison.html")
    given, _ = options.read(arguments)

    from layerwise.run.files import output_file
    from layerwise.run.run import Run

    runs = [Run(path) for path in given.runs]
    if len(runs) > 1:
        from layerwise.report.comparison import write_comparison

        out = given.out or "comparison.html"
        write_comparison(runs, output_file("out", out))
        print(out)
        return
    if given.out is not None:
        options.error("--out: is for several runs; the page of one is RUN/report.html")

    import torch

    from layerwise.nn.stack import FrozenStack
    from layerwise.report.listener import draw_layer, draw_stack
    from layerwise.report.page import write_report
    from layerwise.report.summary import summarize
    from layerwise.training.evaluation import evaluate

    (run,) = runs
    records, data = run.finished(), run.data(given.root)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stack = run.stack(records).to(device)
    tested = evaluate(stack, data.test, device)
    summary = summarize(records, tested, data)
    summary |= {"stopped": None, "made": None}
    with suppress(OSError, ValueError, KeyError, TypeError):  # of a run that never came to its end
        stored = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))
        if stored["depth"] == len(records):
            summary |= {name: stored[name] for name in ("stopped", "made")}
    for i, record in enumerate(records, 1):
        draw_layer(run.path, FrozenStack(stack.layers[:i]), record, data)
    draw_stack(run.path, records, data, tested)
    write_report(run, stack, records, data, tested, summary)
    print(run.path / "report.html")
