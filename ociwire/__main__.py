"""Entry point of ``python -m ociwire``, which runs the ``ociwire`` command."""

import sys

from ._cli.main import main

if __name__ == "__main__":
    sys.exit(main())
