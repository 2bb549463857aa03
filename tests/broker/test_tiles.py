"""The log as files: the layout of C2SP tlog-tiles, every byte of it checked, copies that only grow."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trustcompute.broker import log, tiles
from trustcompute.broker.audit import audit
from trustcompute.broker.tiles import TileError, mirror, tile_path
from trustcompute.errors import AuditError, InputError, VerificationError
from trustcompute.primitives import checkpoint, merkle
from trustcompute.primitives.checkpoint import Checkpoint, NoteKey
from trustcompute.primitives.signing import SigningKey

KEY = SigningKey.from_seed(bytes(32))
NAME = NoteKey("bureau.example/trustcompute", KEY.public)
OPENED = log.encode("log.opened", 0, {"origin": NAME.name, "key": KEY.thumbprint})
Write = Callable[..., Path]


def write(folder: Path, size: int, *, detail: str = "") -> Path:
    """A log of incidents."""
    fields = [{"kind": "x", "detail": f"{detail}{n}", "peer": "00" * 32} for n in range(1, size)]
    bodies = [OPENED, *(log.encode("incident", 1, each) for each in fields)]
    tree = merkle.Tree(merkle.leaf_hash(body) for body in bodies)
    note = checkpoint.sign(Checkpoint(NAME.name, size, tree.root()), KEY)
    tiles.write(folder, [log.StoredEntry(n, tree.leaf(n), body) for n, body in enumerate(bodies)], tree, note)
    return folder


@pytest.mark.vectors
@pytest.mark.parametrize(
    ("level", "number", "width", "path"),
    [
        (0, 0, 256, "tile/0/000"),
        (1, 1234067, 256, "tile/1/x001/x234/067"),  # the example of the specification
        (None, 255, 3, "tile/entries/255.p/3"),
        (0, 1000, 112, "tile/0/x001/000.p/112"),
        (2, 999, 1, "tile/2/999.p/1"),
    ],
)
def test_paths_are_those_of_the_specification(level: int | None, number: int, width: int, path: str) -> None:
    assert tile_path(level, number, width) == path


@pytest.mark.vectors
def test_a_log_of_70000_entries_has_the_files_the_specification_lists() -> None:
    """https://c2sp.org/tlog-tiles gives this size: 273 full tiles of level 0 and a partial one, and so on up."""
    found = list(tiles.shape(70_000))
    level = [[(number, width) for at, number, width in found if at == each] for each in (None, 0, 1, 2)]
    assert level[0] == level[1] == [*((n, 256) for n in range(273)), (273, 112)]
    assert level[2] == [(0, 256), (1, 17)] and level[3] == [(0, 1)]


def test_a_bundle_is_entries_behind_their_lengths(tmp_path: Path) -> None:
    folder = write(tmp_path, 2)
    data = (folder / "tile/entries/000.p/2").read_bytes()
    assert data.startswith(len(OPENED).to_bytes(2, "big") + OPENED)
    assert (folder / "tile/0/000.p/2").read_bytes()[:32] == merkle.leaf_hash(OPENED)


def test_tiles_that_are_full_stay_as_they_are(tmp_path: Path) -> None:
    write(tmp_path, 300)
    full = tmp_path / "tile/0/000"
    before = full.stat().st_mtime_ns
    write(tmp_path, 600)
    assert full.stat().st_mtime_ns == before
    assert audit(tmp_path, NAME).size == 600
    assert audit(tmp_path, NAME, processes=2) == audit(tmp_path, NAME)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("log"), 600)


@pytest.mark.property
@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_byte_of_any_file_is_located(exported: Path, data: st.DataObject) -> None:
    level, number, width = data.draw(st.sampled_from(list(tiles.shape(600))))
    file = tile_path(level, number, width)
    good = (exported / file).read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[at] ^= data.draw(st.integers(1, 255))
    (exported / file).write_bytes(bad)
    try:
        with pytest.raises(TileError) as caught:
            audit(exported, NAME)
    finally:
        (exported / file).write_bytes(good)
    is_located(exported, (level, number, width), at, caught.value)


def is_located(folder: Path, tile: tuple[int | None, int, int], at: int, error: TileError) -> None:
    """The error names the byte ``at`` of a tile of hashes, or the entry that the byte belongs to."""
    level, number, width = tile
    assert error.file == tile_path(*tile)
    if level is not None:
        assert error.offset == at, "a hash is named by its byte"
        return
    bundle = tiles.read_bundle(folder, number, width)
    entry = max(n for n, start in enumerate(bundle.offsets) if start <= at)
    assert (error.offset, error.index) == (bundle.offsets[entry], bundle.first + entry)


def test_every_byte_of_a_brokers_log_is_located_when_it_is_flipped(world: Any, tmp_path: Path) -> None:
    """Not a sample: each byte of each file once, another bit of it each time."""
    broker = world.broker()
    world.posted(broker, broker.issue(world.claims()))
    broker.export(tmp_path)
    key, size = broker.log_key, len(broker.entries())
    flipped = 0
    for tile in tiles.shape(size):
        for at, bad in flips(tmp_path / tile_path(*tile)):
            with pytest.raises(TileError) as caught:
                audit(tmp_path, key)
            bad.undo()
            is_located(tmp_path, tile, at, caught.value)
            flipped += 1
    for _, bad in flips(tmp_path / tiles.CHECKPOINT_FILE):
        with pytest.raises(VerificationError, match=r"^checkpoint: "):
            audit(tmp_path, key)
        bad.undo()
    files = [path for path in (tmp_path / "tile").rglob("*") if path.is_file()]
    assert flipped == sum(path.stat().st_size for path in files) > 2000
    assert audit(tmp_path, key).size == size, "and everything is as it was"


@dataclass(frozen=True)
class Flip:
    path: Path
    good: bytes

    def undo(self) -> None:
        self.path.write_bytes(self.good)


def flips(path: Path) -> Iterator[tuple[int, Flip]]:
    """Flip a bit of each byte of a file in turn; whoever asks for the next takes it back."""
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
        yield at, Flip(path, good)


@pytest.mark.parametrize("change", [b"", b"more"])
def test_files_cut_off_or_continued_are_located(exported: Path, change: bytes) -> None:
    for file in ("tile/entries/001", "tile/0/001", "tile/1/000.p/2"):
        good = (exported / file).read_bytes()
        (exported / file).write_bytes(good + change if change else good[:-1])
        try:
            with pytest.raises(TileError) as caught:
                audit(exported, NAME)
        finally:
            (exported / file).write_bytes(good)
        assert caught.value.file == file


def test_a_file_that_is_missing_is_named(exported: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(exported, copy)
    (copy / "tile/0/001").unlink()
    with pytest.raises(InputError, match="tile/0/001"):
        audit(copy, NAME)


def test_entries_and_tiles_of_another_log_contradict_the_checkpoint(exported: Path, tmp_path: Path) -> None:
    forged = write(tmp_path / "forged", 600, detail="other")
    shutil.copy(exported / "checkpoint", forged / "checkpoint")
    with pytest.raises(AuditError, match="are not the 600 entries that were signed"):
        audit(forged, NAME)


def test_a_copy_grows_and_never_takes_over_a_rewritten_log(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    assert mirror(write(tmp_path / "a", 300), copy, NAME).size == 300
    assert mirror(write(tmp_path / "b", 600), copy, NAME).size == 600
    assert audit(copy, NAME).root == audit(tmp_path / "b", NAME).root
    for other in (write(tmp_path / "c", 700, detail="other"), tmp_path / "a"):
        with pytest.raises(AuditError, match="rewritten or cut"):
            mirror(other, copy, NAME)
    assert audit(copy, NAME).size == 600
    with pytest.raises(VerificationError):
        mirror(tmp_path / "b", copy, NoteKey("other/log", KEY.public))


def test_a_brokers_log_is_exported_audited_and_taken_over(world: Any, tmp_path: Path) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    jobs = [world.posted(broker, grant).id for _ in range(3)]
    broker.export(tmp_path / "export")
    receipt = broker.receipt(jobs[0])
    world.posted(broker, grant)
    broker.export(tmp_path / "export")
    report = audit(tmp_path / "export", broker.log_key, known=[receipt.checkpoint])
    assert report.balances == broker.audit().balances and report.jobs == {"posted": 4}
    assert mirror(tmp_path / "export", tmp_path / "regulator", broker.log_key).size == report.size
