"""Accuracy of a run by depth and by class, on its test images or on others."""

import sys
from pathlib import Path

from layerwise.cli import Options, check_read
from layerwise.errors import SettingError


def main(arguments: list[str]) -> None:
    """Print accuracies at each depth, of each class, and the most frequent confusions."""
    options = Options("evaluate", __doc__)
    options.add_argument("run", metavar="RUN", help="a run directory, such as runs/digits-seed0")
    options.add_argument("--data.root", dest="root", metavar="FOLDER", help="of the data, if it has moved since")
    options.add_argument("--images", metavar="FOLDER", help="the pictures FOLDER/<class>/*, instead of the test images")
    options.add_argument("--mirror", action="store_true", help="also with each image's mirror image")
    options.add_argument(
        "--top", type=int, metavar="K", help="share among the K likeliest; default: 5 where there are more classes"
    )
    options.add_argument("--predictions", metavar="FILE", help="write what is said of each image, comma-separated")
    options.add_argument("--json", metavar="PATH", help="write all that was measured to this file")
    given, _ = options.read(arguments)

    import torch

    from layerwise.console import one_line, print_table
    from layerwise.report import tested as report
    from layerwise.run.files import output_file, write_json
    from layerwise.run.run import Run
    from layerwise.trained import load
    from layerwise.training.evaluation import RANKS, Evaluation, evaluate, evaluate_mirrored

    predictions, json = output_file("predictions", given.predictions), output_file("json", given.json)
    run, data, lost = Run(given.run), None, list[str]()
    if given.images:
        trained = load(given.run)
        records, stack, what = trained.records, trained.stack, given.images
        images, lost = trained.labeled(Path(given.images))
    else:
        records, data = run.finished(), run.data(given.root)
        stack, images, what = run.stack(records), data.test, f"the test split of {run.config.data.name}"
    classes = records[0].classes
    if given.top is not None and not 2 <= given.top < len(classes):
        remedy = f"give 2 to {len(classes) - 1}" if len(classes) > 2 else "omit it"
        raise SettingError(f"top: {given.top}, but there are {len(classes)} classes; {remedy}")
    flip = records[0].settings["data"]["flip"]
    if given.mirror and not ((data or run.data(given.root)).augmentation.flip if flip is None else flip):
        reason = "mirrored images may not show their class (data.flip is false for what the run was trained on)"
        raise SettingError(f"mirror: {reason}; omit it")

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    k = given.top or (RANKS if len(classes) > RANKS else None)
    stack, ranks = stack.to(device), max(RANKS, k or 0)
    mirrored: Evaluation | None = None
    if given.mirror:
        tested, mirrored = evaluate_mirrored(stack, images, device, ranks=ranks)
    else:
        tested = evaluate(stack, images, device, ranks=ranks)
    if data and run.config.depth != "auto" and len(records) < run.config.depth:
        print(f"{len(records)} of {run.config.depth} layers are finished")
    print(f"{len(images)} images of {what}, {len(classes)} classes\n")
    validation = [record.val_accuracy for record in records] if data else None
    print_table(report.by_depth(tested, k, validation, mirrored))
    for left, (title, table) in enumerate((report.by_class(tested, classes), report.confusions(tested, classes)), 1):
        if len(table) > 1:
            print(f"\n{title}\n")
            print_table(table, left)
    if predictions:
        report.write_predictions(predictions, tested, images, classes)
    if json:
        found = {"run": given.run, "evaluated": what} | report.values(tested, classes, k, validation)
        if mirrored:
            found["mirrored"] = report.values(mirrored, classes, k)
        write_json(json, found)
    for reason in lost:
        print(one_line(reason), file=sys.stderr)
    check_read(len(lost), len(lost) + len(images))
