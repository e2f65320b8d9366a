"""Seeds: everything random follows from the run's seed, by unrelated streams."""


def fold_seed(*numbers: int) -> int:
    """One seed from several numbers, such as (seed, layer, epoch); different numbers give unrelated seeds."""
    mixed = 0
    for number in numbers:
        mixed = (mixed ^ (number & 0xFFFFFFFF)) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ (mixed >> 29)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 32
    return mixed & 0x7FFFFFFFFFFFFFFF
