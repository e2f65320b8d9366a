"""Train the rows of one of the paper's tables or figures, or of other models (peers), and print them."""

from layerwise.cli import Options


def main(arguments: list[str]) -> None:
    """Train every row that is not trained yet, then print the table."""
    settings = "data, optimizer, features, trainer, wandb, layer and layers, but for what makes a row"
    options = Options("paper", __doc__, settings)
    options.add_argument("table", choices=["table1", "table2", "table3", "table4", "figure8", "figure9", "peers"])
    options.add_argument("--scale", choices=["full", "small"], help="small, unless given: N = 256, 10 epochs")
    options.add_argument("--seeds", type=int, default=1, metavar="N", help="train every row with seeds 0 to N-1")
    options.add_argument("--json", metavar="PATH", help="write the rows to this file")
    given, rest = options.read(arguments)

    from layerwise.experiments.paper.reproduce import reproduce

    reproduce(given.table, given.scale, given.seeds, given.json, rest)
