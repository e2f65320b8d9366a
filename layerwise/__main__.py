"""python -m layerwise TOOL: what is done with a finished run."""

import sys
from argparse import ArgumentParser

from layerwise.command import guarded


def main(arguments: list[str]) -> int:
    """Run a tool.

    Returns:
        The exit code.
    """
    parser = ArgumentParser(prog="python -m layerwise", description="Tools for finished runs.")
    tools = parser.add_subparsers(dest="tool", required=True, metavar="TOOL")
    evaluating = tools.add_parser("evaluate", help="test accuracy at every depth of a run")
    evaluating.add_argument("run_dir", metavar="RUN", help="a run directory, such as runs/digits-seed0")
    evaluating.add_argument("--data-root", help="folder of the data, if it has moved since")
    given = parser.parse_args(arguments)

    def evaluate() -> None:
        from layerwise.evaluate import evaluate as run

        run(given.run_dir, given.data_root)

    return guarded(evaluate)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
