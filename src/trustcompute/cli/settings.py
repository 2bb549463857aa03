"""A node's configuration file, and the files other commands read.

    identity = "identity"            # directory with key.pem, certificate.pem, authority.pem
    book = "book"                    # directory of the broker's book; made if absent
    database = "host=…"              # keep the book in PostgreSQL, and only the outbox in the directory; optional
    listen = "127.0.0.1:8815"
    results = "results"              # where results revealed to this side are written; optional
    trusted = ["trustee.pem"]        # certificates of others whose grants and rules count too; optional
    regulators = ["regulator.example"]   # who may read the log, the rules and statements; optional

    [contingency]                    # programs that get an event as JSON on their standard input; optional
    notify = ["/usr/local/bin/tell", "--all"]   # told of every order about a grant, and of every incident
    suspend = ["/usr/local/bin/judge"]          # asked at every incident: status 0 suspends the job's grant

    [[dataset]]
    id = "planes"
    source = "planes.parquet"
    version = "2013"
    keys = ["tailnum", ["manufacturer", "model"]]
    casefold = false
    stored = "digests"               # where digests of keys are kept, for files larger than memory; optional
    changing = "followed"            # where a table whose versions can be followed is kept; optional
    evaluated = "tables"             # where evaluated tables and their keys are kept: offers lookups; optional

    aggregates = ["seats"]           # columns that may be added up with those of other holders; optional
    vector = "seats"                 # a column whose rows may be added up row by row; optional
    least_parties = 3                # the fewest parties whose sum this dataset takes part in
    least_matched = 20               # the fewest rows of a sum over matched rows, and by which two such sums differ
    key_holders = ["keys.example"]   # under whose keys it may be encrypted; optional
    opens = false                    # whether sums are opened here under grants for it; then it needs no source
    pad_to = "power-of-two"          # what sets of keys are filled up to, or a number; optional
    labels = {seats = 8}             # columns told of keys that match, and the most bytes of a value; optional

    [dataset.unit]                   # optional: whose presence a release hides, and how much of each it may use
    column = "owner"                 # each row is a unit, if left out
    groups = 3
    rows_per_group = 20
    known = {state = ["CA", "NY"]}   # values that are public knowledge

    [dataset.verified]               # optional: what may be verified of its records
    subject = "tailnum"              # the key columns that name a record
    predicates = ["present", "seats >= 100", "match(manufacturer, model)"]
    directory = "verification"       # where tables and their secrets are kept
    consent = false                  # whether every question takes a token of the subject's
    epoch = 1                        # of the keys; counted up, all tables are made anew under other ones
    earlier = 1                      # tables of each predicate, replaced by later ones, that still answer
    download = false                 # whether masked tables are given to those whose grants name verify.download.v1

    [dataset.sums]                   # optional: what may be added up over keys that both sides hold
    min_group = 10                   # the least number of keys that anything is told of
    values = {seats = {low = 0, high = 500}}      # what one key adds lies within these bounds
    by = {manufacturer = ["AIRBUS", "BOEING"]}    # groups that may be asked for

    [dataset.statistics]             # optional: what may be counted and added up by group
    by = ["engine", "manufacturer"]  # or {engine = ["Turbo-fan", "Turbo-jet"]}: the values that name groups
    columns = ["seats"]              # those that may be added up
    contributor = "owner"            # whose contributions are protected; each row is one, if left out
    min_frequency = 3
    dominance = [1, 75]
    p_percent = 10

    [dataset.limits.rho]             # what all grantees together may use; ρ and ε in 10^-12, δ in 10^-18
    total = 1_000_000_000_000

Paths are relative to the file.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from cryptography import x509
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trustcompute import dp, node, psi, verification
from trustcompute.broker.grant import Limit
from trustcompute.errors import ParameterError
from trustcompute.node.contingency import TIMEOUT, Command
from trustcompute.primitives.identity import peer_key
from trustcompute.primitives.signing import VerifyKey
from trustcompute.protocol.operation import MAX_AMOUNT, UNITS

Form = TypeVar("Form", bound=BaseModel)


class Section(BaseModel):
    """A part of the file. What it leaves out is as the library has it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    def stated(self) -> dict[str, Any]:
        return self.model_dump(exclude_unset=True)


class UnitSettings(Section):
    column: str | None = None
    groups: int = 1
    rows_per_group: int = 1
    known: dict[str, list[str | int | bool]] = {}


class VerifiedSettings(Section):
    subject: str | list[str]
    predicates: list[str]
    directory: str
    epoch: Annotated[int, Field(ge=1, le=2**32)] = 1
    least_in_bucket: Annotated[int, Field(ge=1, le=2**20)] | None = None
    download: bool = False
    earlier: Annotated[int, Field(ge=0, le=8)] = 1
    consent: bool = False

    def published(self, folder: Path) -> node.Published:
        return node.Published(**self.stated() | {"directory": folder / self.directory})


class BoundsSettings(Section):
    low: int | str
    high: int | str
    scale: int = 1


class SumsSettings(Section):
    values: dict[str, BoundsSettings] = {}
    by: dict[str, list[str | int | bool]] = {}
    min_group: int | None = None

    def summable(self) -> node.Summable:
        values = {name: psi.Bounds(**one.stated()) for name, one in self.values.items()}
        return node.Summable(**self.stated() | {"values": values})


class StatisticsSettings(Section):
    by: list[str] | dict[str, list[str | int | bool]]
    columns: list[str] = []
    signed: list[str] = []
    contributor: str | None = None
    min_frequency: int | None = None
    dominance: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    p_percent: int | None = None

    def rules(self) -> verification.Rules:
        fields = self.stated() | {"by": self.by if isinstance(self.by, dict) else dict.fromkeys(self.by, ())}
        if self.dominance is not None:
            fields["dominance"] = tuple(self.dominance)
        return verification.Rules(**fields)


class LimitSettings(Section):
    total: Annotated[int, Field(ge=0, le=MAX_AMOUNT)] | None = None
    per_call: Annotated[int, Field(ge=0, le=MAX_AMOUNT)] | None = None
    per_day: Annotated[int, Field(ge=0, le=MAX_AMOUNT)] | None = None


class DatasetSettings(Section):
    id: str
    source: str | None = None
    version: str
    keys: list[str | list[str]] = []
    casefold: bool = False
    classification: str = "general"
    grade: str = "general"
    personal: bool = False
    evaluated: str | None = None
    changing: str | None = None
    aggregates: list[str] = []
    vector: str | None = None
    least_parties: int = 3
    least_matched: int = 20
    labels: dict[str, int] = {}
    pad_to: int | Literal["power-of-two"] | None = None
    key_holders: list[str] = []
    opens: bool = False
    stored: str | None = None
    unit: UnitSettings | None = None
    verified: VerifiedSettings | None = None
    sums: SumsSettings | None = None
    statistics: StatisticsSettings | None = None
    limits: dict[Annotated[str, Field(pattern=f"^({'|'.join(UNITS)})$")], LimitSettings] = {}

    def dataset(self, folder: Path) -> node.Dataset:
        if self.source is None and not self.opens:
            raise ParameterError(f"dataset {self.id!r} needs a source: a file")
        fields = {"source": None} | self.stated()
        for name in {"source", "stored", "evaluated", "changing"} & self.model_fields_set:
            fields[name] = folder / fields[name]
        fields["limits"] = {unit: Limit(**one.stated()) for unit, one in self.limits.items()}
        if self.unit is not None:
            fields["unit"] = dp.PrivacyUnit(**self.unit.stated())
        if self.verified is not None:
            fields["verified"] = self.verified.published(folder)
        if self.sums is not None:
            fields["sums"] = self.sums.summable()
        if self.statistics is not None:
            fields["statistics"] = self.statistics.rules()
        return node.Dataset(**fields)


class ContingencySettings(Section):
    notify: Annotated[list[str], Field(min_length=1)] | None = None
    suspend: Annotated[list[str], Field(min_length=1)] | None = None
    timeout: Annotated[float, Field(gt=0, le=600, strict=False)] = TIMEOUT

    def command(self, arguments: list[str] | None) -> Command | None:
        return None if arguments is None else Command(tuple(arguments), self.timeout)


class NodeSettings(Section):
    identity: str
    book: str
    database: str | None = None
    listen: Annotated[str, Field(pattern=r"^[^:\s]+:[0-9]{1,5}$")] = "127.0.0.1:8815"
    results: str | None = None
    trusted: list[str] = []
    regulators: list[str] = []
    contingency: ContingencySettings = Field(default_factory=ContingencySettings)
    dataset: list[DatasetSettings] = []
    folder: Path = Field(default=Path(), exclude=True)

    def path(self, name: str) -> Path:
        return self.folder / name

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.listen.rsplit(":", 1)
        return host, int(port)

    def trusted_keys(self) -> list[VerifyKey]:
        """The keys in the certificates of ``trusted``. Raises ``ParameterError``."""
        return [peer_key(read_certificate(self.path(name))) for name in self.trusted]

    def datasets(self) -> list[node.Dataset]:
        return [one.dataset(self.folder) for one in self.dataset]


def load_settings(path: Path) -> NodeSettings:
    """Read a node's file. Raises ``ParameterError`` naming the setting that is wrong."""
    return read_toml(path, NodeSettings, folder=path.parent)


def read_toml(path: Path, form: type[Form], **more: object) -> Form:
    """A TOML file in the form of a model; more: fields that are not in it. Raises ``ParameterError``."""
    try:
        return form.model_validate(tomllib.loads(read_text(path)) | more)
    except tomllib.TOMLDecodeError as error:
        raise ParameterError(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ParameterError(f"{path}: {where}: {first['msg']}") from error


def read_certificate(path: Path) -> x509.Certificate:
    """Raises ``ParameterError`` for a file that holds no certificate."""
    try:
        return x509.load_pem_x509_certificate(read_text(path).encode())
    except ValueError as error:
        raise ParameterError(f"{path} holds no certificate in PEM") from error


def read_bytes(path: Path) -> bytes:
    """A small file. Raises ``ParameterError`` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ParameterError(f"cannot read {path}: {error.strerror}") from error


def read_text(path: Path) -> str:
    """A small text file. Raises ``ParameterError`` where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a file. Raises ``ParameterError`` where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ParameterError(f"cannot write {path}: {error.strerror}") from error
