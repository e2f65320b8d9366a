"""How clustered the patches of images or features are."""

from layerwise.cli import Options


def main(arguments: list[str]) -> None:
    """Measure, print a table for each source, write figures and JSON."""
    settings = "config, data, seed, run_dir and wandb"
    options = Options("patches", __doc__, settings)
    options.add_argument("--patch_size", type=int, metavar="S", help="5, or that of the layer")
    options.add_argument("--layer", metavar="RUN[:i]", help="what layer i of a run sees; without i, each layer")
    options.add_argument("--photos", metavar="FOLDER", help="photographs of any size, in any subfolder")
    options.add_argument("--photo_size", type=int, metavar="SIDE", help="shrink them to so many pixels")
    options.add_argument("--patches", type=int, default=262_144, metavar="M", help="how many to sample")
    options.add_argument("--centroids", type=int, default=1024, metavar="N", help="at most so many")
    options.add_argument("--seeds", type=int, default=1, metavar="N", help="draws, for bands around curves")
    options.add_argument("--json", metavar="PATH", help="write what was measured to this file")
    given, rest = options.read(arguments)

    from layerwise.experiments.patches.measure import Asked, patches

    patches(Asked(rest, **vars(given)))
