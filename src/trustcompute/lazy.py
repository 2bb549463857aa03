"""Packages whose public names are imported when they are first used (PEP 562).

Who calls it: ``trustcompute`` and the packages of its layers. So a program, or a command of the command line, loads
what it uses and not every layer there is. A package names its public names twice: under ``if TYPE_CHECKING`` as
imports, for type checkers, editors and readers; by module for ``attach``. A test holds the two equal.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module


def attach(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package. names: by the module they are imported from.

    The package itself as a module means its own subpackages and modules. A public name is never that of a module
    beside it: an import of the module would set the package's attribute to it.
    """
    homes = {name: module for module, listed in names.items() for name in listed}

    def find(name: str) -> object:
        module = homes.get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if module == package:
            return import_module(f"{package}.{name}")
        found = getattr(import_module(module), name)
        setattr(sys.modules[package], name, found)
        return found

    def known() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return find, known, sorted(homes)
