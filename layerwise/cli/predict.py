"""The classes of pictures, by a trained stack."""

import sys

from layerwise.cli import Options, check_read, pictures

HEADER = ("file", "class", "probability", "next best", "its probability")


def main(arguments: list[str]) -> None:
    """Print file, class, probability and the next best class of each picture; OSError where a file is none."""
    options = Options("predict", __doc__)
    options.add_argument("run", metavar="RUN", help="a run directory, such as runs/digits-seed0")
    options.add_argument("files", metavar="FILE", nargs="+", help="pictures, folders of them, - for names from stdin")
    kinds = options.add_mutually_exclusive_group()
    kinds.add_argument("--json", action="store_true", help="a JSON object a line, with the probability of every class")
    kinds.add_argument("--csv", action="store_true", help="comma-separated, with a header")
    given, _ = options.read(arguments)

    import csv
    import json

    from layerwise.console import one_line, print_table
    from layerwise.trained import load

    stack, rows, read, lost = load(given.run), [HEADER], 0, 0
    lines = csv.writer(sys.stdout, lineterminator="\n")
    if given.csv:
        lines.writerow(HEADER)
    for path, probabilities in stack.classified(file for file, _ in pictures(given.files)):
        if isinstance(probabilities, str):
            print(one_line(probabilities), file=sys.stderr)
            lost += 1
            continue
        read += 1
        if given.json:
            shares = {name: round(value, 6) for name, value in zip(stack.classes, probabilities.tolist(), strict=True)}
            best = stack.classes[int(probabilities.argmax())]
            print(json.dumps({"file": path, "class": best, "probabilities": shares}, ensure_ascii=False), flush=True)
            continue
        best, second = probabilities.topk(2).indices.tolist()
        shown = [(stack.classes[i], f"{float(probabilities[i]):.4f}") for i in (best, second)]
        row = path, *shown[0], *shown[1]
        if given.csv:
            lines.writerow(row)
        else:
            rows.append(row)  # whose widths are those of the table's columns
    if not given.csv and not given.json:
        print_table(rows)
    check_read(lost, lost + read)
