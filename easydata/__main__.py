"""`python -m easydata` is the command `easydata`."""

import sys

from easydata.cli import main

if __name__ == "__main__":
    sys.exit(main())
