"""Whether what is promised of a run's files holds on this machine."""

from layerwise.cli import Options


def main(arguments: list[str]) -> None:
    """Try the promises, and print what came of it."""
    options = Options("selftest", __doc__)
    options.add_argument("--folder", help="where, such as on the disk that runs will lie on; default: the usual place")
    options.add_argument(
        "--effort", type=float, default=1, help="5: 50 kills, 2,000 damaged files; default: 1, a fifth"
    )
    options.add_argument("--json", metavar="PATH", help="write the outcomes to this file")
    given, _ = options.read(arguments)
    if not 0 < given.effort < 1000:
        options.error(f"--effort: {given.effort:g} is out of range; give a number such as 1")

    from layerwise.experiments.selftest.run import selftest
    from layerwise.run.files import output_file

    selftest(given.folder, given.effort, output_file("json", given.json))
