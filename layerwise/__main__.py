"""python -m layerwise VERB: the command."""

import sys

from layerwise.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
