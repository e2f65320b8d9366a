"""Whether a GPU computes what it should, and how fast: what `layerwise check-gpu` tries."""
