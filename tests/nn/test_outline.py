import torch

from layerwise.config import Layer
from layerwise.nn.outline import most_numbers, output_shape
from tests.nn.layers import SMALL, make_layer


def test_output_shape__leaves_the_module_as_it_was() -> None:
    layer = make_layer(SMALL, (2, 9, 8)).layer
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    for training in (True, False):
        layer.train(training)
        assert output_shape(layer, (2, 9, 8)) == (5, 4, 3)
        assert all(module.training == training for module in layer.modules())
    after = layer.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_most_numbers__is_the_size_of_the_largest_tensor_on_the_way() -> None:
    small, wide = Layer(patch_size=3, atoms=8, channels=5, pool=1), Layer(patch_size=2, atoms=9, channels=30, pool=2)
    lower, upper = make_layer(small, (2, 12, 11)), make_layer(wide, (5, 10, 9))
    assert most_numbers([], (2, 12, 11)) == 2 * 12 * 11
    assert most_numbers([lower], (2, 12, 11)) == 8 * 10 * 9  # as many atoms at as many positions
    assert most_numbers([upper], (5, 10, 9)) == 30 * 5 * 4  # what is averaged over windows, and has more channels then
    before = {name: value.clone() for name, value in lower.train().state_dict().items()}
    assert most_numbers([lower, upper], (2, 12, 11)) == 8 * 10 * 9
    assert all(torch.equal(value, before[name]) for name, value in lower.state_dict().items())
    assert not any(part._forward_hooks for part in lower.modules())
