from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import Any

import pytest

from trustcompute.broker.outbox import Outbox, file_name
from trustcompute.errors import LocalProtocolError, StoreError

JOB = "0123456789abcdef" * 2
FRAMES: list[list[Any]] = [[b"header", memoryview(b"body")], [b"", b"\xff" * 8], [], [bytes(5000)]]
PLAIN = [[bytes(part) for part in frame] for frame in FRAMES]


def test_frames_come_back_part_by_part(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "outbox")
    digest = box.write(JOB, 0, 3, FRAMES)
    assert box.read(JOB, 0, 3) == PLAIN
    path = tmp_path / "outbox" / file_name(JOB, 0, 3)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert box.write(JOB, 0, 3, FRAMES) == digest
    assert box.write(JOB, 0, 3, FRAMES[:1]) != digest  # how frames are cut is part of it
    box.write(JOB, 1, 0, [])
    assert box.read(JOB, 1, 0) == []
    assert box.names() == {f"{JOB}-0-3", f"{JOB}-1-0"}
    box.remove(box.names())
    assert box.names() == set()


def test_a_turn_that_is_gone_or_damaged_says_so(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    with pytest.raises(StoreError, match="no longer kept"):
        box.read(JOB, 0, 0)
    box.write(JOB, 0, 0, FRAMES)
    path = tmp_path / file_name(JOB, 0, 0)
    whole = path.read_bytes()
    for cut in (3, 10, len(whole) - 1, len(whole) - 8):
        path.write_bytes(whole[:cut])
        with pytest.raises(StoreError, match="damaged"):
            box.read(JOB, 0, 0)


@pytest.mark.parametrize(
    "name", [("../../etc/passwd", 0, 0), (JOB.upper(), 0, 0), (JOB, -1, 0), (JOB, 0, 10**8)]
)
def test_names_cannot_leave_the_directory(tmp_path: Path, name: tuple[str, int, int]) -> None:
    with pytest.raises(LocalProtocolError):
        Outbox(tmp_path).write(*name, FRAMES)


def test_a_disk_that_refuses_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Outbox(tmp_path)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match="free space"):
        box.write(JOB, 0, 0, FRAMES)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_leaves_an_answer_that_is_kept_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Outbox(tmp_path)
    box.write(JOB, 0, 0, FRAMES)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match="free space"):
        box.write(JOB, 0, 0, FRAMES[:1])
    assert box.read(JOB, 0, 0) == PLAIN


def test_a_directory_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot create"):
        Outbox(tmp_path / "file" / "outbox")
