"""Which implementation is chosen, and that a refusal says why."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator

import pytest

from trustcompute import kernels
from trustcompute.errors import KernelError
from trustcompute.kernels import dispatch
from trustcompute.kernels.dispatch import Name


@pytest.fixture(autouse=True)
def undecided(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    dispatch.chosen.cache_clear()
    yield
    dispatch.chosen.cache_clear()


def without_extension(monkeypatch: pytest.MonkeyPatch, instead: types.ModuleType | None = None) -> None:
    monkeypatch.setitem(sys.modules, "trustcompute.kernels._native", instead)


@pytest.mark.parametrize("name", dispatch.NAMES)
def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch, name: Name) -> None:
    try:
        dispatch.load(name)
    except KernelError as error:
        pytest.skip(str(error))
    monkeypatch.setenv(dispatch.VARIABLE, name)
    backend = kernels.active()
    assert backend.name == name
    assert dispatch.VARIABLE in backend.reason
    if name != "native":
        assert backend.features == ()


def test_an_unknown_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, "fastest")
    with pytest.raises(KernelError, match="must be one of native, portable, reference"):
        kernels.active()


def test_without_the_extension_the_reference_is_used_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    without_extension(monkeypatch)
    backend = kernels.active()
    assert backend.name == "reference"
    assert "not built" in backend.reason


@pytest.mark.parametrize("name", ["native", "portable"])
def test_without_the_extension_demanding_it_fails(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    without_extension(monkeypatch)
    monkeypatch.setenv(dispatch.VARIABLE, name)
    with pytest.raises(KernelError, match=f"asks for the {name} kernels, but .*not built"):
        kernels.active()


def test_a_stale_extension_is_refused_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    stale = types.ModuleType("trustcompute.kernels._native")
    stale.ABI_VERSION = dispatch.ABI_VERSION - 1  # type: ignore[attr-defined]
    without_extension(monkeypatch, stale)
    backend = kernels.active()
    assert backend.name == "reference"
    assert f"interface {dispatch.ABI_VERSION - 1}" in backend.reason
    assert "build it again" in backend.reason
