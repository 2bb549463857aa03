"""What is imported when: public names when they are used, a command's layers when it runs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer.main

from trustcompute.cli.commands import COMMANDS, app

LAZY = [
    "trustcompute",
    "trustcompute.psi",
    "trustcompute.aggregation",
    "trustcompute.dp",
    "trustcompute.verification",
    "trustcompute.node",
]
COMPUTE = ("trustcompute.psi", "trustcompute.aggregation", "trustcompute.dp", "trustcompute.verification")


def typed(package: str) -> dict[str, str]:
    """Public name -> module, as type checkers read them."""
    source = Path(str(import_module(package).__file__)).read_text(encoding="utf-8")
    [block] = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    return {
        alias.name: str(one.module)
        for one in block.body
        if isinstance(one, ast.ImportFrom)
        for alias in one.names
    }


@pytest.mark.parametrize("package", LAZY)
def test_a_package_offers_what_type_checkers_read(package: str) -> None:
    module, names = import_module(package), typed(package)
    assert module.__all__ == sorted(names)
    assert set(names) <= set(dir(module))
    for name, home in names.items():
        found = import_module(f"{package}.{name}") if home == package else getattr(import_module(home), name)
        assert getattr(module, name) is found
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing


@pytest.mark.parametrize("package", LAZY)
def test_no_module_hides_a_public_name_of_its_package(package: str) -> None:
    folder = Path(str(import_module(package).__file__)).parent
    modules = {path.stem for path in folder.iterdir()}
    assert {name for name, home in typed(package).items() if home != package} & modules == set()


def imported(program: str) -> set[str]:
    """The modules that a fresh interpreter has imported after a program."""
    program += "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def after(*arguments: str) -> set[str]:
    return imported(f"from trustcompute.cli import main\nassert main({list(arguments)!r}) == 0")


def computing(modules: set[str]) -> set[str]:
    """Modules of compute layers; the packages themselves are but lists of names."""
    return {name for name in modules if name.startswith(tuple(f"{layer}." for layer in COMPUTE))}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["identity", "--help"]])
def test_a_command_that_needs_no_tables_imports_none(arguments: list[str]) -> None:
    modules = after(*arguments)
    assert computing(modules) == set()
    assert modules & {"pyarrow", "numpy", "trustcompute.broker", "trustcompute.node"} == set()


@pytest.mark.parametrize("group", ["grant", "rules", "log"])
def test_commands_of_the_broker_import_no_compute_layer(group: str) -> None:
    assert computing(after(group, "--help")) == set()


def test_the_package_imports_a_layer_when_it_is_used() -> None:
    assert computing(imported("import trustcompute")) == set()
    used = computing(imported("import trustcompute\ntrustcompute.dp.zcdp"))
    assert used and all(name.startswith("trustcompute.dp.") for name in used)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_itself(name: str) -> None:
    group = typer.main.get_group(app)
    command = group.get_command(None, name)
    assert command.help is not None
    assert COMMANDS[name].says == " ".join(command.help.split("\n\n")[0].split())
