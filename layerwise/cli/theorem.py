"""Test error against samples and atoms, where patches come from clusters."""

from layerwise.cli import Options


def main(arguments: list[str]) -> None:
    """Train every learner on every sample size, print the errors, draw them."""
    settings = "data.teacher, optimizer, layer, trainer and wandb, but for what the sweep sets"
    options = Options("theorem", __doc__, settings)
    options.add_argument("--seeds", type=int, default=1, metavar="N", help="repeat with seeds 0 to N-1")
    options.add_argument("--quick", action="store_true", help="few samples and steps: whether it runs")
    options.add_argument("--json", metavar="PATH", help="write the errors to this file")
    given, rest = options.read(arguments)

    from layerwise.experiments.paper.theorem import theorem

    theorem(given.seeds, given.quick, given.json, rest)
