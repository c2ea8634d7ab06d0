"""Runs the ``ociwire`` command: ``python -m ociwire``."""

import sys

from ._cli.main import main

if __name__ == "__main__":
    sys.exit(main())
