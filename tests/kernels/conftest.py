"""Every implementation that can run here, each held to the same tests."""

from __future__ import annotations

import os

import pytest

from trustcompute.errors import KernelError
from trustcompute.kernels import dispatch


def loaded(name: dispatch.Name) -> dispatch.Implementation:
    """The implementation, or a skip that says why; no skip where the environment demands compiled kernels."""
    try:
        return dispatch.load(name)[1]
    except KernelError as error:
        if os.environ.get(dispatch.VARIABLE) in ("native", "portable"):
            raise
        pytest.skip(str(error))


@pytest.fixture(params=dispatch.NAMES)
def implementation(request: pytest.FixtureRequest) -> dispatch.Implementation:
    return loaded(request.param)


@pytest.fixture(params=["native", "portable"])
def compiled(request: pytest.FixtureRequest) -> dispatch.Implementation:
    return loaded(request.param)


@pytest.fixture
def reference() -> dispatch.Implementation:
    return loaded("reference")
