"""What a training will take, before anything is trained."""


def main(arguments: list[str]) -> None:
    """Print shapes, parameters, arithmetic, room and seconds of each layer; takes the settings of `layerwise train`."""
    from layerwise.parsing import parse

    config, _, _ = parse(arguments, "layerwise plan")

    from layerwise.experiments.plan import plan

    plan(config)
