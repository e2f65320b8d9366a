"""python -m layerwise TOOL: what is done beside training."""

import sys
from argparse import ArgumentParser
from typing import NoReturn

from layerwise.cli.command import guarded


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for every other mistake."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def main(arguments: list[str]) -> int:
    """Run a tool.

    Returns:
        The exit code.
    """
    parser = _Parser(prog="python -m layerwise", description="Tools beside train.py.")
    tools = parser.add_subparsers(dest="tool", required=True, metavar="TOOL")
    evaluating = tools.add_parser("evaluate", allow_abbrev=False, help="test accuracy at every depth of a run")
    evaluating.add_argument("run_dir", metavar="RUN", help="a run directory, such as runs/digits-seed0")
    evaluating.add_argument("--data-root", help="folder of the data, if it has moved since")
    evaluating.add_argument("--mirror", action="store_true", help="also with each image's mirror image")
    measuring = tools.add_parser(
        "benchmark", allow_abbrev=False, help="how fast this machine trains, against the plain way"
    )
    measuring.add_argument("--quick", action="store_true", help="small shapes: whether it runs, not how fast")
    measuring.add_argument("--json", metavar="PATH", help="write the rows of layers to this file")
    reproducing = tools.add_parser(
        "paper", allow_abbrev=False, help="train the rows of one of the paper's tables, and print it"
    )
    reproducing.add_argument("table", choices=["table1", "table2", "table3", "table4", "figure8", "figure9"])
    reproducing.add_argument("--scale", choices=["full", "small"], default="small", help="small: N = 256, 10 epochs")
    reproducing.add_argument("--seeds", type=int, default=1, metavar="N", help="train every row with seeds 0 to N-1")
    reproducing.add_argument("--json", metavar="PATH", help="write the rows to this file")
    measuring_patches = tools.add_parser(
        "patches", allow_abbrev=False, help="how clustered the patches of images or features are"
    )
    measuring_patches.add_argument("--patch_size", type=int, metavar="S", help="5, or that of the layer")
    measuring_patches.add_argument(
        "--layer", metavar="RUN[:i]", help="what layer i of a run sees; without i, each layer"
    )
    measuring_patches.add_argument("--photos", metavar="FOLDER", help="photographs of any size, in any subfolder")
    measuring_patches.add_argument("--photo_size", type=int, metavar="SIDE", help="shrink them to so many pixels")
    measuring_patches.add_argument("--patches", type=int, default=262_144, metavar="M", help="how many to sample")
    measuring_patches.add_argument("--centroids", type=int, default=1024, metavar="N", help="at most so many")
    measuring_patches.add_argument("--seeds", type=int, default=1, metavar="N", help="draws, for bands around curves")
    measuring_patches.add_argument("--json", metavar="PATH", help="write what was measured to this file")
    proving = tools.add_parser(
        "theorem", allow_abbrev=False, help="test error against samples and atoms, where patches come from clusters"
    )
    proving.add_argument("--seeds", type=int, default=1, metavar="N", help="repeat with seeds 0 to N-1")
    proving.add_argument("--quick", action="store_true", help="few samples and steps: whether it runs")
    proving.add_argument("--json", metavar="PATH", help="write the errors to this file")
    given, rest = parser.parse_known_args(arguments)
    if rest and given.tool not in ("paper", "patches", "theorem"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")

    def evaluate() -> None:
        from layerwise.run.evaluate import evaluate as run

        run(given.run_dir, given.data_root, given.mirror)

    def benchmark() -> None:
        import torch

        from layerwise.experiments.benchmark import benchmark as run

        run(given.quick, given.json, torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    def paper() -> None:
        from layerwise.experiments.paper import reproduce

        reproduce(given.table, given.scale, given.seeds, given.json, rest)

    def patches() -> None:
        from layerwise.experiments.patches import Asked
        from layerwise.experiments.patches import patches as run

        run(Asked(rest, **{name: value for name, value in vars(given).items() if name != "tool"}))

    def theorem() -> None:
        from layerwise.experiments.paper.theorem import theorem as run

        run(given.seeds, given.quick, given.json, rest)

    named = {"evaluate": evaluate, "benchmark": benchmark, "paper": paper, "patches": patches, "theorem": theorem}
    return guarded(named[given.tool])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
