"""Train a deep patch-based network, one layer at a time: python train.py --depth 2 is layerwise train --depth 2."""

import sys

from layerwise.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
