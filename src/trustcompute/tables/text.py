"""Text under ``tc-key/1``: NFKC, case folding and trimming, a whole column at a time.

Called by ``normalisation``. Source: docs/reference/normalisation.md, "Text"; UAX #15 for NFKC, the Unicode
standard §3.13 for full case folding.

Normalising is slow, and most text is what it should be already: rows of inert characters alone (those that
NFKC never touches) are recognised with a table and left alone.
"""

from __future__ import annotations

import functools
import unicodedata

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

ASCII_BLANKS = "\t\n\v\f\r "
WHITE_SPACE = ASCII_BLANKS + "\x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B)))
WHITE_SPACE += "\u2028\u2029\u202f\u205f\u3000"
TRIMMED = WHITE_SPACE + "\u200b\u2060\ufeff"

IS_ASCII_BLANK: Mask = np.isin(np.arange(256), list(ASCII_BLANKS.encode()))
ASCII_LOWER: U8 = np.array([ord(chr(byte).lower()) if byte < 128 else byte for byte in range(256)], np.uint8)

TABLE_SIZE = 0x10000
"""Code points in the table of inert characters: the basic plane. What lies above is always normalised."""


def normalised(text: pa.Array, *, casefold: bool) -> tuple[I64, U8]:
    """Steps 2 to 4 of the rule on a large_string array of valid UTF-8: (offsets int64[n + 1], bytes).

    A null becomes empty, as what is blank does.
    """
    offsets, data = cells(text.fill_null("") if text.null_count else text)
    if len(data) == 0 or data.max() < 0x80:  # ASCII is its own NFKC
        # Not pyarrow's ascii_lower: it miscalculates where the offsets of an array do not start at 0.
        return _trimmed_ascii(offsets, np.take(ASCII_LOWER, data) if casefold else data)
    offsets, data = _nfkc(offsets, data)
    if casefold:
        offsets, data = _nfkc(*_case_folded(offsets, data))
    return cells(pc.utf8_trim(_array(offsets, data), characters=TRIMMED))


def cells(array: pa.Array) -> tuple[I64, U8]:
    """(offsets int64[n + 1] from 0, the bytes they point into) of a large_string or large_binary array."""
    _, offsets, data = array.buffers()
    if len(array) == 0 or offsets is None:
        return np.zeros(len(array) + 1, np.int64), np.zeros(0, np.uint8)
    window = np.frombuffer(offsets, np.int64, len(array) + 1, offset=8 * array.offset)
    start, stop = int(window[0]), int(window[-1])
    if start == stop:
        return np.zeros(len(array) + 1, np.int64), np.zeros(0, np.uint8)
    return (window - start if start else window), np.frombuffer(data, np.uint8, stop - start, offset=start)


def _array(offsets: I64, data: U8) -> pa.Array:
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, buffers)


def _trimmed_ascii(offsets: I64, data: U8) -> tuple[I64, U8]:
    filled = offsets[1:] > offsets[:-1]
    first, last = data[offsets[:-1][filled]], data[offsets[1:][filled] - 1]
    if not (IS_ASCII_BLANK[first].any() or IS_ASCII_BLANK[last].any()):
        return offsets, data
    return cells(pc.ascii_trim(_array(offsets, data), characters=ASCII_BLANKS))


def _nfkc(offsets: I64, data: U8) -> tuple[I64, U8]:
    points = _code_points(data)
    inert = np.take(_inert(), np.minimum(points, TABLE_SIZE))
    if inert.all():
        return offsets, data
    starts = np.flatnonzero(_starts_character(data))
    rows = np.zeros(len(offsets) - 1, np.bool_)
    rows[np.searchsorted(offsets, starts[~inert], side="right") - 1] = True
    text, mask = _array(offsets, data), pa.array(rows)
    return cells(pc.replace_with_mask(text, mask, pc.utf8_normalize(text.filter(mask), "NFKC")))


@functools.cache
def _inert() -> Mask:
    """bool[TABLE_SIZE + 1]: characters that NFKC leaves alone, whichever of them stand beside each other.

    Nothing that decomposes; no marks and no Hangul letters, which compose with what stands before them;
    nothing that this Python does not know. The last element stands for every code point above the table.
    """
    table = np.zeros(TABLE_SIZE + 1, np.bool_)
    for point in range(TABLE_SIZE):
        character = chr(point)
        table[point] = (
            unicodedata.category(character) not in {"Mn", "Mc", "Me", "Cn", "Co", "Cs"}
            and not unicodedata.name(character, "").startswith("HANGUL JUNGSEONG")
            and not unicodedata.name(character, "").startswith("HANGUL JONGSEONG")
            and unicodedata.normalize("NFKC", character) == character
        )
    return table


def _case_folded(offsets: I64, data: U8) -> tuple[I64, U8]:
    """Full case folding of all rows at once.

    A code point folds to the same whatever stands around it, so the text of all rows is folded in one piece;
    the new offsets follow from how many bytes each code point becomes.
    """
    whole = data.tobytes().decode()
    folded = whole.casefold()
    if folded == whole:
        return offsets, data
    points = _code_points(data)
    widths = np.zeros(0x110000, np.uint8)
    widths[points] = 1
    distinct = np.flatnonzero(widths)
    widths[distinct] = [len(chr(point).casefold().encode()) for point in distinct.tolist()]
    ends = np.concatenate([[0], np.cumsum(widths[points], dtype=np.int64)])
    points_before = np.concatenate([[0], np.cumsum(_starts_character(data))])
    return ends[points_before[offsets]], np.frombuffer(folded.encode(), np.uint8)


def _code_points(data: U8) -> U32:
    return np.frombuffer(data.tobytes().decode().encode("utf-32-le"), "<u4").astype(np.uint32, copy=False)


def _starts_character(data: U8) -> Mask:
    starts: Mask = (data & 0xC0) != 0x80
    return starts
