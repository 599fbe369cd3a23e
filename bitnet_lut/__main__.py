"""``python -m bitnet_lut`` is the command line."""

import sys

from bitnet_lut.cli import main

if __name__ == "__main__":
    sys.exit(main())
