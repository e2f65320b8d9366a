"""layerwise train: train a stack, one layer at a time."""


def main(arguments: list[str]) -> None:
    """Parse, check, train, say what came out."""
    from layerwise.parsing import parse  # --help needs no more than this

    config, run_dir = parse(arguments)

    from layerwise.api import train

    train(config, run_dir)
