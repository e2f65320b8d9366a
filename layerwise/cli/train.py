"""Train a stack, one layer at a time."""

from layerwise import ahead, console
from layerwise.environment import number_on_machine
from layerwise.errors import TOLD_ELSEWHERE, SettingError


def main(arguments: list[str]) -> None:
    """Parse, check, train, say what came out."""
    from layerwise.parsing import parse  # --help needs no more than this

    try:
        config, run_dir, restart_from = parse(arguments)
    except SettingError as error:
        if number_on_machine() and any(word.startswith(("--trainer.devices", "--trainer.num")) for word in arguments):
            error.add_note(TOLD_ELSEWHERE)
        raise
    with console.mute(config.trainer.processes > 1 and number_on_machine() > 0):
        print("starting: loading torch and lightning", flush=True)
        if config.trainer.accelerator != "gpu":
            ahead.start()

        from layerwise.api import train

        train(config, run_dir, restart_from=restart_from)
