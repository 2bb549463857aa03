"""The command tree, and how errors become exit codes."""

from __future__ import annotations

import json
import sys
from typing import Final

from trustcompute import errors

EXIT_CODES: Final = (
    (errors.InputError, 2),
    (errors.Refused, 3),
    (errors.VerificationError, 4),
    (errors.TransportError, 5),
    (errors.JobInterrupted, 5),
    (errors.JobForfeited, 6),
    (errors.Conflict, 6),
    (errors.StoreError, 7),
)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    try:
        import typer  # noqa: PLC0415

        from trustcompute.cli.commands import app  # noqa: PLC0415
    except ModuleNotFoundError as error:
        print(
            f"the command line needs the package {error.name}: pip install 'trustcompute[cli]'",
            file=sys.stderr,
        )
        return 2
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        result = app(arguments, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except errors.TrustcomputeError as error:
        _show(error, as_json="--json" in arguments)
        return exit_code(error)
    except OSError as error:
        print(f"error: {error.strerror or error}: {error.filename or ''}".rstrip(": "), file=sys.stderr)
        return 7
    except typer.Abort:
        print("stopped", file=sys.stderr)
        return 1
    except Exception as error:
        if not hasattr(error, "format_message"):  # not a usage error of the command line
            raise
        print(f"{error.format_message()} (see --help)", file=sys.stderr)
        return 2


def exit_code(error: errors.TrustcomputeError) -> int:
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)


def _show(error: errors.TrustcomputeError, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": error.to_wire()}, indent=2))
        return
    if isinstance(error, errors.Refused):
        print(f"refused by the rule {error.rule!r} on {error.field}", file=sys.stderr)
        print(f"  to satisfy it  {error.fix}\n  ask            {error.owner}", file=sys.stderr)
        return
    print(f"error: {error}", file=sys.stderr)
    if isinstance(error, errors.JobInterrupted) and error.job:
        print(f"  go on with --job {error.job}", file=sys.stderr)
