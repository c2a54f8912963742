"""Every test here that takes `world` runs in virtual time and on sockets."""

from __future__ import annotations

import pytest

from tests.support.worlds import World


@pytest.fixture(
    params=[pytest.param(True, id="virtual"), pytest.param(False, id="loopback", marks=pytest.mark.sockets)]
)
def world(request: pytest.FixtureRequest) -> World:
    return World(virtual=request.param)
