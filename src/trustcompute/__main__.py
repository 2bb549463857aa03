"""``python -m trustcompute``: the command line, for where its script is not on the PATH."""

import sys

from trustcompute.cli import main

sys.exit(main())
