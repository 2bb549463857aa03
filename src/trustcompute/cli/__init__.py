"""The command line: ``trustcompute --help``. Every command is a few lines over the library.

Exit codes: 0 done; 2 wrong input or usage; 3 refused by a grant, a policy or a limit; 4 something does not
verify; 5 the peer cannot be reached, or a job was interrupted (try again with ``--job``); 6 a job is spent or in
conflict; 7 the book cannot be read or written; 1 anything else. ``--json`` prints one JSON document instead.
"""

from trustcompute.cli.app import main

__all__ = ["main"]
