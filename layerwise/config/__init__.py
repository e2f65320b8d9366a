"""Everything a run can be told, as plain frozen dataclasses: the standard library alone, so that --help is instant."""

from layerwise.config.layer import Gate, Layer, Maps, Norm, Probe, Residual, Sampling, Whitening
from layerwise.config.run import Config, Data, Features, Optimizer, SingleLayer, Teacher, Trainer, Wandb
from layerwise.errors import SettingError

__all__ = ["Config", "Data", "Features", "Gate", "Layer", "Maps", "Norm", "Optimizer", "Probe", "Residual", "Sampling"]
__all__ += ["SettingError", "SingleLayer", "Teacher", "Trainer", "Wandb", "Whitening"]
