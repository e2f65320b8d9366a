"""What a training will take, before anything is trained."""


def main(arguments: list[str]) -> None:
    """Print shapes, parameters, arithmetic, room and seconds of each layer; takes the settings of `layerwise train`."""
    from layerwise.parsing import parse

    purpose = "Print what a training with these settings will take, in room and seconds; nothing is trained or deleted."
    config, _, _ = parse(arguments, "layerwise plan", purpose)

    from layerwise.experiments.plan import plan

    plan(config)
