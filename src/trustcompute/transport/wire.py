"""The form frames take on an Arrow Flight stream.

One schema per direction: a single ``uint8`` column. A frame is one or more record batches of at most 4 MiB; the
first carries the frame's header as its ``app_metadata``, the others none. A frame with an empty body is one
empty batch. An error is a Flight error whose ``extra_info`` is the error's canonical JSON (``errors.to_wire``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
from pyarrow import flight

from trustcompute.errors import RemoteProtocolError, TrustcomputeError, VerificationError, from_wire
from trustcompute.primitives import canonical
from trustcompute.protocol.message import MAX_HEADER, Frame

SCHEMA: Final = pa.schema([("bytes", pa.uint8())])
BATCH: Final = 4 * 1024 * 1024
MAX_ACTION: Final = (
    1024 * 1024
)  # a grant and a request take under 64 KiB, a catalogue of 1,000 datasets under 1 MiB
MAX_ERROR: Final = 16 * 1024


def write(writer: Any, frames: Iterable[Frame]) -> None:
    """Write frames to a Flight stream that has begun with ``SCHEMA``."""
    for frame in frames:
        metadata: bytes | None = frame.header
        for part in _batches(frame):
            batch = pa.record_batch([part], schema=SCHEMA)
            if metadata is None:
                writer.write_batch(batch)
            else:
                writer.write_with_metadata(batch, metadata)
                metadata = None


def _batches(frame: Frame) -> Iterator[pa.Array]:
    if not any(part.nbytes for part in frame.body):
        yield pa.array([], pa.uint8())
    for part in frame.body:
        buffer = pa.py_buffer(part)
        for start in range(0, part.nbytes, BATCH):
            piece = buffer.slice(start, min(BATCH, part.nbytes - start))
            yield pa.Array.from_buffers(pa.uint8(), piece.size, [None, piece])


class IncomingFrame:
    """A frame being received: its header has arrived, its body is read when its size has been agreed to."""

    def __init__(self, header: bytes, first: pa.RecordBatch, read: Callable[[], Any]) -> None:
        self.header = header
        self._first: pa.RecordBatch | None = first
        self._read = read

    def body(self, size: int) -> memoryview:
        first = _bytes_of(self._first)
        if first.nbytes == size:
            return memoryview(first)
        whole = np.empty(size, dtype=np.uint8)
        filled = self._fill(whole, 0, first)
        while filled < size:
            chunk = self._read()
            if chunk is None or chunk.app_metadata is not None:
                raise RemoteProtocolError(f"a body of {filled} bytes came where {size} were announced")
            filled = self._fill(whole, filled, _bytes_of(chunk.data))
        return memoryview(whole)

    @staticmethod
    def _fill(whole: np.ndarray, filled: int, part: np.ndarray) -> int:
        if filled + part.nbytes > whole.nbytes or (part.nbytes == 0 and whole.nbytes > 0):
            raise RemoteProtocolError("a body has more bytes than announced, or an empty piece")
        whole[filled : filled + part.nbytes] = part
        return filled + part.nbytes


def _bytes_of(batch: pa.RecordBatch | None) -> np.ndarray:
    if (
        batch is None
        or batch.num_columns != 1
        or batch.column(0).null_count
        or batch.column(0).nbytes > BATCH
    ):
        raise RemoteProtocolError("the stream holds a batch that is not one column of at most 4 MiB of bytes")
    return np.asarray(batch.column(0).to_numpy(zero_copy_only=True))


def read(reader: Any) -> Iterator[IncomingFrame]:
    """Frames of a Flight stream, each to be read to its end before the next."""
    if reader.schema != SCHEMA:
        raise RemoteProtocolError("the stream's schema is not a single uint8 column named 'bytes'")

    def chunk() -> Any:
        try:
            return reader.read_chunk()
        except StopIteration:
            return None

    while (first := chunk()) is not None:
        if first.app_metadata is None or first.app_metadata.size > MAX_HEADER:
            raise RemoteProtocolError("bytes came without a frame header, or with one that is too long")
        yield IncomingFrame(first.app_metadata.to_pybytes(), first.data, chunk)


def to_flight(error: TrustcomputeError) -> flight.FlightError:
    """The Flight error that carries one of ours, without a traceback."""
    document = {name: str(value)[:2000] for name, value in error.to_wire().items()}
    return flight.FlightServerError(document["message"], extra_info=canonical.dumps(document))


def from_flight(error: flight.FlightError) -> TrustcomputeError | None:
    """Our error inside a Flight error a peer sent; None where there is none."""
    if not error.extra_info:
        return None
    try:
        return from_wire(canonical.loads(bytes(error.extra_info), limit=MAX_ERROR))
    except VerificationError:
        return RemoteProtocolError("the peer answered with an error that is not in the agreed form")
