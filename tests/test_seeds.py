from layerwise.seeds import fold_seed


def test_fold_seed__tells_numbers_and_their_order_apart() -> None:
    seeds = {fold_seed(i, j) for i in range(50) for j in range(50)}
    assert len(seeds) == 2500
    assert all(0 <= seed < 2**63 for seed in seeds)
