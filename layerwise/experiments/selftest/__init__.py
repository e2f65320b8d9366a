"""layerwise selftest: what is promised of a run's files, tried on this machine."""
