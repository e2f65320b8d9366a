"""Test accuracy of a run at every depth."""

from layerwise.cli import Options


def main(arguments: list[str]) -> None:
    """Print the accuracy on the test images, and on the validation images as recorded, at each depth."""
    options = Options("evaluate", __doc__)
    options.add_argument("run", metavar="RUN", help="a run directory, such as runs/digits-seed0")
    options.add_argument("--data.root", dest="root", metavar="FOLDER", help="of the data, if it has moved since")
    options.add_argument("--mirror", action="store_true", help="also with each image's mirror image")
    given, _ = options.read(arguments)

    import torch

    from layerwise.console import print_table
    from layerwise.run.run import Run
    from layerwise.training.evaluation import evaluate

    run = Run(given.run)
    records, data = run.finished(), run.data(given.root)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stack = run.stack(records).to(device)
    columns = {"test": evaluate(stack, data.test, device).accuracies}
    if given.mirror:
        columns["test, with mirror image"] = evaluate(stack, data.test, device, "testing, mirrored", True).accuracies
    table = [("depth", "validation", *columns)]
    for i, record in enumerate(records):
        cells = (f"{column[i]:.2%}" for column in columns.values())
        table.append((str(record.layer), f"{record.val_accuracy:.2%}", *cells))
    if run.config.depth != "auto" and len(records) < run.config.depth:
        print(f"{len(records)} of {run.config.depth} layers are finished")
    print_table(table)
