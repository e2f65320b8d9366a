"""Train a stack, one layer at a time."""

from layerwise import ahead


def main(arguments: list[str]) -> None:
    """Parse, check, train, say what came out."""
    from layerwise.parsing import parse  # --help needs no more than this

    config, run_dir, restart_from = parse(arguments)
    print("starting: loading torch and lightning", flush=True)
    if config.trainer.accelerator != "gpu":
        ahead.start()

    from layerwise.api import train

    train(config, run_dir, restart_from=restart_from)
