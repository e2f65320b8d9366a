"""The user's own arrays, which are given, not read."""

from layerwise.config import Data, SettingError
from layerwise.config.choices import DATASETS
from layerwise.data.splits import RawData


@DATASETS("arrays")
def arrays(config: Data) -> RawData:
    """Your own arrays, from Python alone: layerwise.train(config, data=layerwise.dataset(images, labels)).

    Raises:
        SettingError: always, as no run keeps them.
    """
    there = "layerwise.train(config, data=layerwise.dataset(images, labels)), layerwise.load(RUN).predict(images)"
    raise SettingError(f"data.name: arrays are kept nowhere; give them from Python: {there}")
