"""How fast this machine trains, against the plain way."""

from layerwise.cli import Options


def main(arguments: list[str]) -> None:
    """Measure and print."""
    options = Options("benchmark", __doc__)
    options.add_argument("--quick", action="store_true", help="small shapes: whether it runs, not how fast")
    options.add_argument("--json", metavar="PATH", help="write the rows of layers to this file")
    given, _ = options.read(arguments)

    import torch

    from layerwise.experiments.benchmark.run import benchmark

    benchmark(given.quick, given.json, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
