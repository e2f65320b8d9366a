"""Where a run gains accuracy and where it loses it, layer by layer."""

from layerwise.cli import Options


def main(arguments: list[str]) -> None:
    """Print what each layer knows by heart, what it says alone, and what a CNN makes of what it was given."""
    options = Options("explain", __doc__)
    options.add_argument("run", metavar="RUN", help="a run directory, such as runs/digits-seed0")
    options.add_argument("--data.root", dest="root", metavar="FOLDER", help="of the data, if it has moved since")
    options.add_argument("--epochs", type=int, default=4, metavar="E", help="of each CNN; 0: none; default: 4")
    options.add_argument("--json", metavar="PATH", help="write the figures to this file")
    given, _ = options.read(arguments)

    from layerwise.errors import SettingError
    from layerwise.experiments.explain import explain
    from layerwise.run.files import output_file

    file = output_file("json", given.json)
    if given.epochs < 0:
        raise SettingError(f"epochs: {given.epochs} is too few; give 1 or more, or 0 for no CNN")
    explain(given.run, given.root, given.epochs, file)
