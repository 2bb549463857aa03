"""Every error the library raises, in one tree.

    TrustcomputeError
    ├── InputError                    what the caller passed cannot be used
    │   ├── TableError                a table, a column or a file
    │   └── ParameterError            a parameter of a computation
    ├── VerificationError             a signature, proof, receipt or log does not verify
    │   ├── GrantError                a grant or request: malformed, altered, foreign, expired
    │   └── AuditError                a log or a book that contradicts itself
    ├── Refused                       the policy, the grant or the meter says no, and what would satisfy it
    ├── Conflict                      the same job id was used for another request
    ├── ProtocolError
    │   ├── LocalProtocolError        our own party broke the protocol: a bug, or misuse of the API
    │   └── RemoteProtocolError       the peer sent what the protocol does not allow
    ├── JobInterrupted                a computation stopped half way; says how to retry
    ├── JobForfeited                  a computation stopped after data were touched; its reservation is spent
    ├── TransportError                the peer cannot be reached, or is not who it should be
    ├── StoreError                    the book cannot be read or written
    └── KernelError                   the native kernels were demanded and are not usable

An error crosses the wire as ``to_wire()`` and is raised again on the other side by ``from_wire()``: its class,
its message and its public fields, never a traceback.
"""

from __future__ import annotations

from typing import Any, ClassVar


class TrustcomputeError(Exception):
    """Root of the tree. ``code`` names the class on the wire, in the log and in ``--json`` output."""

    code: ClassVar[str] = "error"
    fields: ClassVar[tuple[str, ...]] = ()

    def to_wire(self) -> dict[str, Any]:
        return {"code": self.code, "message": str(self)} | {name: getattr(self, name) for name in self.fields}


class InputError(TrustcomputeError):
    code = "input"


class TableError(InputError):
    code = "table"


class ParameterError(InputError):
    code = "parameter"


class VerificationError(TrustcomputeError):
    code = "verification"


class GrantError(VerificationError):
    """A grant or a request is not acceptable. ``field`` names the offending header, claim or key."""

    code = "grant"
    fields = ("field",)

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class AuditError(VerificationError):
    code = "audit"


class Refused(TrustcomputeError):
    """A computation is not allowed, and this is an answer a person can act on.

    rule: the rule that refused (``quota``, ``purpose``, ``operation``, ``revoked`` ...);
    field: the field of the request it looked at;
    owner: who can change the rule (the thumbprint or name of the grant's issuer, the node's operator ...);
    fix: the smallest change that would satisfy it.
    """

    code = "refused"
    fields = ("rule", "field", "owner", "fix")

    def __init__(self, message: str, *, rule: str, field: str, owner: str, fix: str) -> None:
        super().__init__(message)
        self.rule, self.field, self.owner, self.fix = rule, field, owner, fix


class Conflict(TrustcomputeError):
    code = "conflict"


class ProtocolError(TrustcomputeError):
    code = "protocol"


class LocalProtocolError(ProtocolError):
    code = "protocol.local"


class RemoteProtocolError(ProtocolError):
    code = "protocol.remote"


class JobInterrupted(TrustcomputeError):
    """The computation stopped half way. Pass ``job`` back as ``job=`` to go on with it."""

    code = "interrupted"
    fields = ("job",)

    def __init__(self, message: str, job: str = "") -> None:
        super().__init__(message)
        self.job = job


class JobForfeited(TrustcomputeError):
    """The computation stopped after data were touched: what it had reserved is spent. Start a new job."""

    code = "forfeited"
    fields = ("job",)

    def __init__(self, message: str, job: str = "") -> None:
        super().__init__(message)
        self.job = job


class TransportError(TrustcomputeError):
    code = "transport"


class StoreError(TrustcomputeError):
    code = "store"


class KernelError(TrustcomputeError):
    code = "kernel"


def _tree(root: type[TrustcomputeError]) -> dict[str, type[TrustcomputeError]]:
    """The errors of this module by code; narrower ones made elsewhere arrive as the one they are a kind of."""
    found = {root.code: root}
    for child in root.__subclasses__():
        if child.__module__ == __name__:
            found |= _tree(child)
    return found


def from_wire(document: object) -> TrustcomputeError:
    """Rebuild an error a peer sent. What is not a known error becomes a ``RemoteProtocolError``."""
    if not isinstance(document, dict) or not isinstance(document.get("message"), str):
        return RemoteProtocolError("the peer answered with an error that is not in the agreed form")
    message = _printable(document["message"])[:2000]
    known, code = _tree(TrustcomputeError), str(document.get("code"))
    kind = known.get(code) or known.get(code.partition(".")[0])
    if kind is None:
        return RemoteProtocolError(f"the peer answered with an unknown error: {message}")
    return kind(message, **{name: _printable(str(document.get(name, "")))[:500] for name in kind.fields})


def _printable(text: str) -> str:
    """A peer's words without control characters, which could rewrite a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
