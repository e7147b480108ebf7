"""Start wsavatar from a source tree: ``python run.py``, or ``python run.py --help``."""

import sys

from wsavatar.cli import program

if __name__ == "__main__":
    sys.exit(program())
