"""The layer: whitening, dictionary, gates, maps, probe, and the stack of layers."""
