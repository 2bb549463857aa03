"""The interpreter a system runs in: ours, or that of an environment under ``benchmarks/.peers``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.system import System

PEERS = Path(__file__).resolve().parents[1] / ".peers"


class PeerUnavailable(RuntimeError):
    """A peer cannot be installed on this machine; the message says why."""


def interpreter(system: System) -> Path:
    """Path of the Python to run ``system`` with. Raises ``PeerUnavailable``."""
    if not system.requirements:
        return Path(sys.executable)
    folder = PEERS / system.name
    python, stamp = folder / "bin/python", folder / "installed.txt"
    wanted = "\n".join(system.requirements)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"Installing {wanted.replace(chr(10), ', ')} into {folder}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    _run(system, [_base(system), "-m", "venv", str(folder)])
    _run(
        system, [str(python), "-m", "pip", "install", "--quiet", "--only-binary=:all:", *system.requirements]
    )
    stamp.write_text(wanted, encoding="utf-8")
    return python


def _base(system: System) -> str:
    if not system.pythons or sys.version_info[:2] in system.pythons:
        return sys.executable
    for major, minor in reversed(system.pythons):
        found = shutil.which(f"python{major}.{minor}")
        if found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
            return found
    wheels = ", ".join(f"{major}.{minor}" for major, minor in system.pythons)
    raise PeerUnavailable(f"{system.name} has wheels for Python {wheels}; none of these is on the PATH")


def _run(system: System, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise PeerUnavailable(f"{system.name} cannot be installed: " + " / ".join(last))
