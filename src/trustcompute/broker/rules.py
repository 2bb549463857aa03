"""What stands above all grants: deny-lists and policies, as signed documents with versions.

A node's operator, and every issuer that the node trusts, may lay down one deny-list (``tc-denylist+jwt``) and one
policy (``tc-policy+jwt``). ``Broker.publish`` takes them in, newer versions only; ``policy.decide`` looks at
deny-lists before anything else and at policies after the grant. Where several apply, each may refuse: the strictest
wins. Every decision names the documents it was made by.

    deny-list   keys, names, datasets, operations and purposes that get nothing, whatever their grants say
    policy      per grade, per class and for personal data: which operations and output forms, how small a group,
                how many rows, how much of a unit a job may use and a grant may be limited to; whether a consent
                must be named; which trustees may grant what

Without a policy that says otherwise, data of grade ``core`` are not computed on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, field_validator

from trustcompute.broker.grant import (
    Amount,
    Count,
    Digest,
    Document,
    Grade,
    Grant,
    Identifier,
    Label,
    Labels,
    Name,
    OperationId,
    Thumbprint,
    Time,
    distinct,
    read_claims,
    text,
)
from trustcompute.errors import GrantError, ParameterError, StoreError
from trustcompute.primitives import signing
from trustcompute.primitives.signing import SigningKey, TokenError, VerifyKey
from trustcompute.protocol.operation import UNITS, OutputForm, Scope, Usage

MAX_RULES: Final = 512 * 1024  # characters of a token: some 8,000 keys
MAX_DENIED: Final = 8192  # entries of each list
MAX_PARSED: Final = 64  # documents kept in memory
CORE: Final = "core"

Kind = Literal["denylist", "policy"]
Version = Annotated[int, Field(ge=1, le=2**53 - 1)]
Finding = tuple[str, str, str, str]  # rule, field, owner, fix
Entry = TypeVar("Entry")
Denied = Annotated[tuple[Entry, ...], Field(strict=False, max_length=MAX_DENIED), AfterValidator(distinct)]
Pattern = Annotated[
    str, text(r"^[a-z][a-z0-9_.-]{0,62}\*?$")
]  # an operation's id, or how it begins and a star


class Published(Document):
    """What every rule document says of itself. iss: thumbprint of who signed it; aud: the node it is for."""

    kind: ClassVar[Kind]
    header: ClassVar[str]

    iss: Thumbprint
    aud: Name
    version: Version
    iat: Time

    def sign(self, key: SigningKey) -> str:
        """The token. Raises ``ParameterError`` where the document names another issuer, or is too large."""
        if self.iss != key.thumbprint:
            raise ParameterError(f"the document names issuer {self.iss}, but the key is {key.thumbprint}")
        return signing.sign(self.header, self.to_document(), key, limit=MAX_RULES)


class DenyList(Published):
    """Who and what gets nothing. keys: thumbprints, of grantees, issuers and parties; names: of peers and grantees."""

    kind: ClassVar[Kind] = "denylist"
    header: ClassVar[str] = "tc-denylist+jwt"

    keys: Denied[Thumbprint] = ()
    names: Denied[Name] = ()
    datasets: Denied[Identifier] = ()
    operations: Denied[OperationId] = ()
    purposes: Denied[Label] = ()

    @functools.cached_property
    def sets(self) -> dict[str, frozenset[str]]:
        """The lists by name, to look things up in."""
        return {
            "keys": frozenset(self.keys),
            "names": frozenset(self.names),
            "datasets": frozenset(self.datasets),
            "operations": frozenset(self.operations),
            "purposes": frozenset(self.purposes),
        }


class Ceiling(Document):
    """The most that any grant gives for data of one kind. What is absent does not limit.

    deny: nothing at all; operations: ids, or how ids begin and a star; min_group: the least group that must be asked
    for; max_rows: of the consumer's; per_call: the most a job may use, by unit; total: the most that the grant (or one
    it was delegated from) may be limited to, by unit: a grant without such a limit is refused.
    """

    deny: bool = False
    operations: Annotated[tuple[Pattern, ...], Field(strict=False, max_length=64)] | None = None
    outputs: Annotated[tuple[Annotated[OutputForm, Field(strict=False)], ...], Field(strict=False)] | None = (
        None
    )
    purposes: Labels | None = None
    min_group: Count | None = None
    max_rows: Count | None = None
    per_call: dict[str, Amount] = Field(default_factory=dict)
    total: dict[str, Amount] = Field(default_factory=dict)

    @field_validator("per_call", "total")
    @classmethod
    def _known_units(cls, amounts: dict[str, int]) -> dict[str, int]:
        if set(amounts) - set(UNITS):
            raise ValueError(f"the units are {', '.join(UNITS)}")
        return amounts


class Trustee(Document):
    """Somebody who grants use of others' data. key: its thumbprint; datasets: those it may grant, and no others.

    consent: whether each of its grants must name the consent it acts on.
    """

    key: Thumbprint
    datasets: Denied[Identifier]
    consent: bool = True


class Policy(Published):
    """What an owner allows at most. datasets: those it is about, all if ``None``.

    grades, classes: ceilings by the data's grade and class; personal: a ceiling for data of persons; consent: whether
    grants for these must name a consent.
    """

    kind: ClassVar[Kind] = "policy"
    header: ClassVar[str] = "tc-policy+jwt"

    datasets: Denied[Identifier] | None = None
    grades: dict[Grade, Ceiling] = Field(default_factory=dict)
    classes: dict[Label, Ceiling] = Field(default_factory=dict, max_length=64)
    personal: Ceiling | None = None
    consent: bool = False
    trustees: Annotated[tuple[Trustee, ...], Field(strict=False, max_length=256)] = ()


Rules = DenyList | Policy
KINDS: Final[Mapping[Kind, type[DenyList] | type[Policy]]] = {"denylist": DenyList, "policy": Policy}


class Reference(Document):
    """Which document a decision was made by. hash: of its token."""

    kind: Kind
    issuer: Thumbprint
    version: Version
    hash: Digest


def read(token: str) -> Rules:
    """The claims of a deny-list or policy, without any check of its signature. Raises ``GrantError``."""
    return _read(token)[0]


def verify(token: str, trusted: Mapping[str, VerifyKey], audience: str) -> Rules:
    """Check form, issuer, signature and audience. Raises ``GrantError`` with the field."""
    claims, unverified = _read(token)
    key = trusted.get(claims.iss)
    if key is None:
        raise GrantError("this node does not trust the issuer of the document", "iss")
    try:
        unverified.verify(key)
    except TokenError as error:
        raise GrantError(str(error), error.field) from error
    if claims.aud != audience:
        raise GrantError(f"the document is for {claims.aud}, this node is {audience}", "aud")
    return claims


def _read(token: str) -> tuple[Rules, signing.Unverified]:
    for kind in KINDS.values():
        if token.startswith(signing.header(kind.header).decode() + "."):
            return read_claims(token, kind.header, kind, limit=MAX_RULES)
    known = " or ".join(kind.header for kind in KINDS.values())
    raise GrantError(f"the token is no {known}", "header")


_parsed: dict[str, Rules] = {}


def parsed(hash_: str, token: Callable[[], str]) -> Rules:
    """A document of the book, parsed once in a process. ``token`` is asked where the hash is new."""
    found = _parsed.get(hash_)
    if found is None:
        if len(_parsed) >= MAX_PARSED:
            _parsed.clear()
        found = _parsed[hash_] = read(token())
    return found


def kind_of(name: str) -> Kind:
    """Raises ``StoreError`` for a kind that this release does not know."""
    for kind in KINDS:
        if kind == name:
            return kind
    raise StoreError("the book has rules of a kind that this release does not know")


@dataclass(frozen=True, slots=True)
class RuleBook:
    """All documents in force in one transaction."""

    denylists: tuple[DenyList, ...] = ()
    policies: tuple[Policy, ...] = ()
    references: tuple[Reference, ...] = ()
    documents: tuple[Rules, ...] = ()  # each reference's

    @classmethod
    def of(cls, held: Iterable[tuple[Reference, Rules]]) -> Self:
        pairs = sorted(held, key=lambda pair: (pair[0].kind, pair[0].issuer))
        found = [rules for _, rules in pairs]
        return cls(
            tuple(each for each in found if isinstance(each, DenyList)),
            tuple(each for each in found if isinstance(each, Policy)),
            tuple(reference for reference, _ in pairs),
            tuple(found),
        )


NO_RULES: Final = RuleBook()


@dataclass(frozen=True, slots=True)
class Facts:
    """What a deny-list is held against: (field of the request, value), by the list that would name it."""

    keys: tuple[tuple[str, str], ...]
    names: tuple[tuple[str, str], ...]
    dataset: str
    operation: str
    purpose: str


def facts_of(links: Iterable[Grant]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Keys and names of everybody in a chain of grants."""
    keys, names = [], []
    for link in links:
        keys += [("grant", link.iss), ("grant", link.cnf.jkt)]
        names.append(("grant", link.sub))
    return keys, names


def denials(book: RuleBook, facts: Facts) -> Iterator[Finding]:
    """Why deny-lists refuse, a reason for each field they name."""
    named = {
        "keys": facts.keys,
        "names": facts.names,
        "datasets": (("dataset", facts.dataset),),
        "operations": (("op", facts.operation),),
        "purposes": (("purpose", facts.purpose),),
    }
    for denied in book.denylists:
        fields = {
            field: None
            for kind, pairs in named.items()
            for field, value in pairs
            if value in denied.sets[kind]
        }
        for field in fields:
            yield (
                "denylist",
                field,
                denied.iss,
                f"version {denied.version} of the deny-list names it: ask for it to be struck off",
            )


@dataclass(frozen=True, slots=True)
class Use:
    """What policies look at. scope and form: ``None`` where the parameters could not be understood."""

    dataset: str
    grade: Grade
    classification: str
    personal: bool
    operation: str
    purpose: str
    rows: int
    usage: Usage
    scope: Scope | None
    form: OutputForm | None
    links: tuple[Grant, ...]  # the grant first, its root last


def excesses(book: RuleBook, use: Use, holder: str) -> Iterator[Finding]:
    """Why policies refuse. holder: who can open core data, where no policy does."""
    applying = [
        policy for policy in book.policies if policy.datasets is None or use.dataset in policy.datasets
    ]
    if use.grade == CORE and not any(CORE in policy.grades for policy in applying):
        yield "grade", "dataset", holder, "core data are not computed on: use data of a lower grade"
    for policy in applying:
        for ceiling in _ceilings(policy, use):
            yield from (
                (f"policy.{rule}", field, policy.iss, fix) for rule, field, fix in _above(ceiling, use)
            )
        if policy.consent and use.personal and use.links[0].consent is None:
            yield (
                "policy.consent",
                "grant",
                policy.iss,
                "ask for a grant that names the persons' consent: it is for data of persons",
            )
    # Whom a policy names a trustee is one for all it says, also for data the policy is not about.
    for policy in book.policies:
        yield from (("policy.trustee", "grant", policy.iss, fix) for fix in _overstepped(policy, use))


def _ceilings(policy: Policy, use: Use) -> Iterator[Ceiling]:
    if use.grade in policy.grades:
        yield policy.grades[use.grade]
    if use.classification in policy.classes:
        yield policy.classes[use.classification]
    if use.personal and policy.personal is not None:
        yield policy.personal


def _above(ceiling: Ceiling, use: Use) -> Iterator[tuple[str, str, str]]:
    if ceiling.deny:
        yield "deny", "dataset", "nothing is computed on data of this kind: use other data"
    if ceiling.operations is not None and not any(
        _matches(each, use.operation) for each in ceiling.operations
    ):
        yield "operation", "op", f"for such data use one of {_listed(ceiling.operations)}"
    if ceiling.outputs is not None and use.form is not None and use.form not in ceiling.outputs:
        yield "output", "params", f"for such data ask for one of {_listed(ceiling.outputs)}"
    if ceiling.purposes is not None and use.purpose not in ceiling.purposes:
        yield "purpose", "purpose", f"such data serve one of {_listed(ceiling.purposes)}"
    if ceiling.min_group is not None and use.scope is not None and use.scope.min_group < ceiling.min_group:
        yield "min_group", "params.min_group", f"set min_group to {ceiling.min_group} at least"
    if ceiling.max_rows is not None and use.rows > ceiling.max_rows:
        yield "max_rows", "sizes.consumer", f"bring at most {ceiling.max_rows} rows"
    for unit, most in ceiling.per_call.items():
        if getattr(use.usage, unit) > most:
            yield "per_call", f"limits.{unit}.per_call", f"a job on such data may use {most} {unit} at most"
    for unit, most in ceiling.total.items():
        limits = [link.limits[unit].total for link in use.links if unit in link.limits]
        if not any(limit is not None and limit <= most for limit in limits):
            yield "total", f"limits.{unit}.total", f"ask for a grant that is limited to {most} {unit} or less"


def _overstepped(policy: Policy, use: Use) -> Iterator[str]:
    root = use.links[-1]
    for trustee in policy.trustees:
        if trustee.key == root.iss and use.dataset not in trustee.datasets:
            yield "the grant's issuer is a trustee of other data: ask somebody who may grant these"
        if trustee.key == root.iss and trustee.consent and root.consent is None:
            yield "ask for a grant that names the consent on which the trustee acts"


def _matches(pattern: str, operation: str) -> bool:
    if pattern.endswith("*"):
        return operation.startswith(pattern[:-1])
    return operation == pattern


def _listed(values: Iterable[str]) -> str:
    names = [str(value) for value in values]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "none"
