"""The newest checkpoint that witnesses cosigned, and asking them for the next one. Held by ``Broker``.

It is kept in a file beside the book: receipts for whoever wants a quorum are made under it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from trustcompute.broker.outbox import keep
from trustcompute.broker.watch import SplitView, Watch
from trustcompute.broker.witness import Contradicted, Quorum, Witnessing, ask
from trustcompute.broker.writer import Writer
from trustcompute.errors import StoreError, TransportError, VerificationError
from trustcompute.primitives import checkpoint
from trustcompute.primitives.checkpoint import CosignerKey, NoteKey

COSIGNED_FILE: Final = "cosigned"


class Cosigned:
    """See the module. directory: the book's."""

    def __init__(self, directory: Path, writer: Writer, watch: Watch) -> None:
        self._file, self._writer, self._watch = directory / COSIGNED_FILE, writer, watch
        self._sizes: dict[CosignerKey, int] = {}  # of the log, when each witness last cosigned it

    def read(self) -> str:
        """The note. Raises ``VerificationError`` where there is none yet."""
        try:
            return self._file.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise VerificationError("no checkpoint was cosigned yet: call cosign") from error
        except OSError as error:
            raise StoreError(f"the cosigned checkpoint cannot be read: {error.strerror}") from error

    def ask(self, witnesses: Sequence[Witnessing], quorum: Quorum, key: NoteKey) -> str:
        """See ``Broker.cosign``. key: of the log."""
        with self._writer.view() as (reader, _):
            note = reader.last_checkpoint() or ""
        size = checkpoint.parse_unverified(note).size
        cosigned = note
        for witness in witnesses:
            try:
                line = ask(witness, note, lambda old: self._consistency(old, size), self._seen(witness))
                cosigned = checkpoint.add_signature(cosigned, line)
                self._sizes[witness.cosigner] = size
            except Contradicted as error:
                # Else it has cosigned a newer one of ours meanwhile.
                if not size < error.size <= self._writer.size:
                    self._watch.tell(SplitView(self._writer.now(), witness.cosigner.name, size))
            except (VerificationError, TransportError):
                continue
        quorum.verify(cosigned, key)
        keep(self._file, cosigned.encode())
        return cosigned

    def _seen(self, witness: Witnessing) -> int:
        return self._sizes.get(witness.cosigner, 0)

    def _consistency(self, old: int, new: int) -> list[bytes]:
        with self._writer.view() as (_, tree):
            return tree.consistency_proof(old, new)
