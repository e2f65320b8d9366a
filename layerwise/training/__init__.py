"""The algorithm, and the training of one layer."""
