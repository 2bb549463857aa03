"""Zero overrun from several processes, on both stores: the campaign in small."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.broker.campaign_overrun import campaign
from tests.broker.postgresql import Server


def test_processes_that_share_a_file_never_overrun(tmp_path: Path) -> None:
    assert campaign(tmp_path, None, processes=4, attempts=400, limit=50) == (50, 350)


def test_processes_that_share_a_database_never_overrun(tmp_path: Path, postgres: Server) -> None:
    assert campaign(tmp_path, postgres.new_schema(), processes=4, attempts=400, limit=50) == (50, 350)


@pytest.mark.parametrize("attempts", [30])
def test_fewer_attempts_than_the_limit_all_succeed(tmp_path: Path, attempts: int) -> None:
    assert campaign(tmp_path, None, processes=2, attempts=attempts, limit=50) == (attempts, 0)
