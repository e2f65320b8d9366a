"""Whether an NVIDIA GPU computes what it should, and how fast."""

from layerwise.cli import Options


def main(arguments: list[str]) -> None:
    """Try the GPU, then print a table."""
    settings = "data, of the images for Table 1, which are CIFAR-10's unless others are given"
    options = Options("check-gpu", __doc__, settings)
    options.add_argument("--minutes", type=float, default=10, help="what there is time for; default: 10")
    goes_on = "file of what was found; the same command goes on with it; default: check-gpu.json"
    options.add_argument("--json", metavar="PATH", default="check-gpu.json", help=goes_on)
    given, rest = options.read(arguments)
    if not 0 < given.minutes < 10_000:
        options.error(f"--minutes: {given.minutes:g} is out of range; give a number such as 10")

    from layerwise.experiments.gpu.check import check_gpu

    check_gpu(given.minutes, given.json, rest)
