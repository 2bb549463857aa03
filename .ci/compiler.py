"""Prints the C++ compiler that can build the extension, and its version, or ``none``.

The Makefile asks before it installs the package: setuptools takes ``CXX`` from the environment or else what
Python itself was configured with, and so does this. It counts as working when it compiles and links two
lines of C++20 against ``Python.h``.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

PROGRAM = """\
#include <Python.h>
#include <bit>
int answer(unsigned x) { return std::popcount(x) + (Py_IsInitialized() ? 1 : 0); }
"""


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++")


def works(command: list[str]) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text(PROGRAM)
        include = sysconfig.get_path("include")
        python = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
        flags = ["-std=c++20", "-fPIC", "-shared", f"-I{include}", *python]
        build = [*command, *flags, source, "-o", Path(folder, "probe.so")]
        try:
            return subprocess.run(build, capture_output=True, check=False, timeout=60).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False


def main() -> None:
    command = compiler()
    if not works(command):
        print("none")
        return
    version = subprocess.run([command[0], "--version"], capture_output=True, text=True, check=False).stdout
    print(shlex.join(command), *version.splitlines()[:1], sep=" | ")


if __name__ == "__main__":
    main()
