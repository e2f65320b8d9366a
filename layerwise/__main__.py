"""python -m layerwise TOOL: what is done beside training."""

import sys
from argparse import ArgumentParser

from layerwise.command import guarded


def main(arguments: list[str]) -> int:
    """Run a tool.

    Returns:
        The exit code.
    """
    parser = ArgumentParser(prog="python -m layerwise", description="Tools beside train.py.")
    tools = parser.add_subparsers(dest="tool", required=True, metavar="TOOL")
    evaluating = tools.add_parser("evaluate", help="test accuracy at every depth of a run")
    evaluating.add_argument("run_dir", metavar="RUN", help="a run directory, such as runs/digits-seed0")
    evaluating.add_argument("--data-root", help="folder of the data, if it has moved since")
    measuring = tools.add_parser("benchmark", help="how fast this machine trains, against the plain way")
    measuring.add_argument("--quick", action="store_true", help="small shapes: whether it runs, not how fast")
    measuring.add_argument("--json", metavar="PATH", help="write the rows of layers to this file")
    given = parser.parse_args(arguments)

    def evaluate() -> None:
        from layerwise.evaluate import evaluate as run

        run(given.run_dir, given.data_root)

    def benchmark() -> None:
        import torch

        from layerwise.benchmark import benchmark as run

        run(given.quick, given.json, torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    return guarded({"evaluate": evaluate, "benchmark": benchmark}[given.tool])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
