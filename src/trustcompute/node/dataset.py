"""What a holder offers: a dataset, described for the catalogue and digested for matching. Its rows stay here."""

from __future__ import annotations

import copy
import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from trustcompute import dp, tables
from trustcompute.aggregation.cohorts import Cohorts
from trustcompute.aggregation.rowsets import RowSets
from trustcompute.aggregation.threshold import Given
from trustcompute.broker.grant import Grade, Limit
from trustcompute.broker.policy import Asset
from trustcompute.errors import ParameterError
from trustcompute.node import labels
from trustcompute.node.aligned import Matches
from trustcompute.node.sums import HeldSums, Summable
from trustcompute.node.verification import Published, Tables, held_tables
from trustcompute.primitives import canonical
from trustcompute.primitives.member import Member
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import SigningKey
from trustcompute.psi.changing import ChangingTable, kept_table
from trustcompute.psi.padding import PadTo, padded_rows
from trustcompute.psi.table import EvaluatedTable, evaluated
from trustcompute.tables.stored import load, store
from trustcompute.verification.statistical.rules import Rules
from trustcompute.verification.statistical.tabulator import Tabulator


@dataclass(frozen=True)
class Dataset:
    """One table a node answers about.

    id, version: names in grants and in the log; a new version is a new promise about the data.
    source:      anything ``tables`` reads; a path is read again at need, a stream is read into memory once.
    keys:        the key columns one may match on: a column, or several that form one key; each entry one choice.
    casefold:    whether text keys are compared without regard to case.
    classification, grade, personal: what policies and grants say about it (``grade`` ``core`` is denied).
    limits:      what all grantees together may use of it, by unit; within an epoch, where there are epochs.
    epoch:       name of the data's epoch: only under a new one are budgets of the dataset fresh again.
    per_recipient: what each who receives results may use of it, over all its grants, by unit.
    stored:      a directory for digests of keys, which then need not fit into memory: 40 bytes a row lie there, not
                 encrypted, and are found again at the next start if the file is the same.
    evaluated:   a directory for evaluated tables and their keys: with it ``psi.lookup.v1`` is offered.
    changing:    a directory for a table whose versions can be followed: with it ``psi.delta.v1`` is offered.
    sums:        what may be added up over keys that both sides hold (``psi.sum.v1``); none: not offered.
    verified:    the predicates that may be verified of its records (``verify.*``).
    statistics:  what may be counted and added up by group (``verify.statistics.v1``), and by which rules.
    unit:        whose presence a release hides; none: nothing is released from it. Needs a limit of rho or epsilon.
                 The catalogue tells its counts of keys to those only whose grant lets them match keys.
    aggregates:  columns that may be added up with those of other holders (``aggregation.masked.v1``); none: not
                 offered.
    vector:      a column whose rows, in order, take part as one vector: sums show a value for every row. Grants that
                 bound columns name it ``value``, as specifications do.
    least_parties: the fewest parties whose sum this dataset takes part in, or is opened under it.
    least_matched: the fewest rows that are added up, without noise, where an aggregate is over matched rows only, and
                 the fewest by which two such sets differ.
    key_holders: names of those under whose key it may be encrypted for a sum; without any, masks alone.
    opens:       whether this node makes keys and opens sums under grants for this dataset (``aggregation.holder.v1``):
                 one for every pool of data, so that sums over almost the same parties are refused. Where it is nothing
                 else, its source is None.
    pad_to:      a number of keys, or ``power-of-two``: to what every set of distinct keys is filled up, so that askers
                 do not learn how many there are. Not with ``evaluated`` or ``sums``.
    labels:      columns that an asker may learn of keys that match, where its grant says so (``matched_labels``), and
                 the most bytes that a value of each takes: 8 for all but text and binary. Longer ones end the start.
    """

    id: str
    source: Any = field(repr=False)
    version: str
    keys: Sequence[str | Sequence[str]] = ()
    casefold: bool = False
    classification: str = "general"
    grade: Grade = "general"
    personal: bool = False
    limits: Mapping[str, Limit] = field(default_factory=dict)
    epoch: str = ""
    per_recipient: Mapping[str, Limit] = field(default_factory=dict)
    evaluated: Path | str | None = None
    changing: Path | str | None = None
    stored: Path | str | None = None
    unit: dp.PrivacyUnit | None = None
    verified: Published | None = None
    sums: Summable | None = None
    statistics: Rules | None = None
    aggregates: Sequence[str] = ()
    vector: str | None = None
    least_parties: int = 3
    least_matched: int = 20
    key_holders: Sequence[str] = ()
    opens: bool = False
    labels: Mapping[str, int] = field(default_factory=dict)
    pad_to: PadTo = None

    def key_choices(self) -> list[tuple[str, ...]]:
        return [(key,) if isinstance(key, str) else tuple(key) for key in self.keys]


@dataclass(frozen=True)
class Contributor:
    """What a node takes part in aggregates with: who it is, the sets of parties it has helped to open, the sums
    for which it gave its decryption share, and the sets of matched rows it added up."""

    member: Member
    cohorts: Cohorts
    given: Given
    rows: RowSets


class HeldDataset:
    """A dataset in a running node: schema read once, keys digested once per choice. Thread-safe."""

    def __init__(
        self, dataset: Dataset, executor: Executor | None = None, *, signer: SigningKey | None = None
    ) -> None:
        d = dataset
        summed = d.aggregates or d.vector or d.opens
        if not (d.key_choices() or d.unit or d.verified or d.statistics or summed):
            raise ParameterError(
                f"dataset {dataset.id!r} names no key columns, no privacy unit, no predicates, no statistics, takes"
                " part in no aggregates and opens none: nobody could ask anything of it"
            )
        tells_sizes = (dataset.evaluated, dataset.sums, dataset.changing)
        if dataset.pad_to is not None and tells_sizes != (None, None, None):
            raise ParameterError(
                f"dataset {dataset.id!r} pads its sets, and evaluated tables, sums and changes tell sizes: drop one"
            )
        self.dataset = dataset
        self.table = tables.open_table(pa.table({}) if dataset.source is None else dataset.source)
        self.table.check_columns([*dataset.aggregates, *([dataset.vector] if dataset.vector else [])])
        self.columns = tables.describe(self.table)
        self.labels = labels.offered(self.table, dataset.labels)
        self.contributor: Contributor | None = None  # the node's part
        self.tabulator: Tabulator | None = None  # the node's too
        self.member: Member | None = None  # the node, where it computes with others
        self.matches: Matches | None = None  # what finished jobs found, at a node
        self.asker = ""  # who asks, where it is held for one asker's job
        self.bounding_key = os.urandom(32)  # decides, while the node runs, which rows of a unit are left out
        self._executor = executor
        self._digested: dict[tuple[str, ...], tables.KeySet] = {}
        self._evaluated: dict[tuple[str, ...], EvaluatedTable] = {}
        self._changing: dict[tuple[str, ...], ChangingTable] = {}
        self._lock = threading.Lock()
        self._rows = self._count()  # bounds its distinct keys, whatever the choice
        self.verification = self._verification(signer)
        self.sums = self._sums()

    def _sums(self) -> HeldSums | None:
        d = self.dataset
        if d.sums is None:
            return None
        return HeldSums(d.sums, self.table, {choice: self.keys(choice) for choice in d.key_choices()})

    def _verification(self, signer: SigningKey | None) -> Tables:
        d = self.dataset
        signer = SigningKey.generate() if signer is None else signer
        if d.verified is None:
            return Tables({}, signer)
        return held_tables(
            d.verified, d.id, d.version, self.table, signer, casefold=d.casefold, executor=self._executor
        )

    def _count(self) -> int:
        choices = self.dataset.key_choices()
        if self.dataset.stored is not None and choices:
            return self.keys(choices[0]).rows  # counting a large CSV file would be a pass more
        return tables.row_count(self.table)

    @property
    def rows(self) -> int:
        return self._rows

    def asked_by(self, asker: str) -> HeldDataset:
        """The same, as a computation gets it that this name asked for."""
        found = copy.copy(self)
        found.asker = asker
        return found

    def asset(self) -> Asset:
        """What the broker's policy knows of it."""
        d = self.dataset
        padded = () if d.pad_to is None else d.key_choices()
        return Asset(
            id=d.id,
            version=d.version,
            schema_hash=tables.schema_hash(self.table),
            classification=d.classification,
            grade=d.grade,
            personal=d.personal,
            rows=max([self._rows, *(self.declared(choice) for choice in padded)]),
            limits=d.limits,
            epoch=d.epoch,
            per_recipient=d.per_recipient,
            tables=tuple(sorted(self.verification.by_id)),
        )

    def keys(self, columns: Sequence[str]) -> tables.KeySet:
        """Digests of the distinct keys. Raises ``ParameterError`` for columns the holder does not match on."""
        choice = tuple(columns)
        if choice not in self.dataset.key_choices():
            known = " or ".join(str(list(known)) for known in self.dataset.key_choices())
            raise ParameterError(f"dataset {self.dataset.id!r} is matched on {known}, not on these columns")
        with self._lock:
            if choice not in self._digested:
                self._digested[choice] = self._digest(choice)
            return self._digested[choice]

    def declared(self, columns: Sequence[str]) -> int:
        """How many distinct keys an asker is told there are: padded, where the holder wants it so."""
        return padded_rows(len(self.keys(columns)), self.dataset.pad_to)

    def _digest(self, choice: tuple[str, ...]) -> tables.KeySet:
        on, folded, stored = list(choice), self.dataset.casefold, self.dataset.stored
        if stored is None:
            return tables.keys(self.table, on, casefold=folded, executor=self._executor)
        source = self.dataset.source if isinstance(self.dataset.source, str | Path) else self.table
        name = hashlib.sha256(canonical.dumps([self.dataset.id, on])).hexdigest()[:32]
        directory = Path(stored) / name
        found = load(source, on, directory, casefold=folded)
        if found is None:
            found = store(source, on, directory, casefold=folded, executor=self._executor)
        return found

    def evaluated(self, columns: Sequence[str]) -> EvaluatedTable:
        """The evaluated table of a key choice, made or read once. Raises ``ParameterError`` where none is offered."""
        keys, directory = self.keys(columns), self.dataset.evaluated
        if directory is None:
            raise ParameterError(f"dataset {self.dataset.id!r} offers no lookups: use an intersection")
        choice = tuple(columns)
        with self._lock:
            if choice not in self._evaluated:
                self._evaluated[choice] = evaluated(
                    keys.digests, keys.spec.digest, Rng.from_os(), Path(directory), executor=self._executor
                )
            return self._evaluated[choice]

    def changing(self, columns: Sequence[str]) -> ChangingTable:
        """The versions of a key choice's table, brought up to date once. Raises ``ParameterError`` where none is
        offered."""
        keys, directory = self.keys(columns), self.dataset.changing
        if directory is None:
            raise ParameterError(f"dataset {self.dataset.id!r} is not followed: use an intersection")
        choice = tuple(columns)
        with self._lock:
            if choice not in self._changing:
                name = canonical.dumps([self.dataset.id, list(choice), keys.spec.digest]).decode()
                self._changing[choice] = kept_table(
                    np.asarray(keys.digests), name, Rng.from_os(), Path(directory), executor=self._executor
                )
            return self._changing[choice]

    def _changing_entry(self, choice: Sequence[str]) -> dict[str, Any] | None:
        if self.dataset.changing is None:
            return None
        table = self.changing(choice)
        versions = [{"base": one.base, "added": one.added, "removed": one.removed} for one in table.versions]
        return {"lineage": table.lineage, "table": table.id, "versions": versions}

    def describe(self, *, matched: bool = True) -> dict[str, Any]:
        """The catalogue's entry: names, kinds and counts, no values.

        matched: whether who reads it may match keys. A count of keys is exact, so where a privacy unit is to be hidden
        it is for those alone whom matching tells it anyway.
        """
        d = self.dataset
        choices = [(choice, self.keys(choice)) for choice in d.key_choices() if matched or d.unit is None]
        return {
            "id": d.id,
            "version": d.version,
            "classification": d.classification,
            "grade": d.grade,
            "personal": d.personal,
            "columns": [{"name": column.name, "type": column.type} for column in self.columns],
            "keys": [
                {
                    "columns": list(choice),
                    "spec": keys.spec.to_json(),
                    "distinct": self.declared(choice),
                    "table": None if d.evaluated is None else self.evaluated(choice).id,
                    "changing": self._changing_entry(choice),
                }
                for choice, keys in choices
            ],
            "unit": None if d.unit is None else _unit_entry(d.unit),
            "predicates": self.verification.entries(),
            "sums": None if d.sums is None else d.sums.entry(),
            "statistics": None if self.tabulator is None else self.tabulator.token,
            "aggregates": list(d.aggregates),
            "vector": d.vector,
            "labels": labels.entries(self.labels),
            "padded": d.pad_to is not None,
        }


def _unit_entry(unit: dp.PrivacyUnit) -> dict[str, Any]:
    return {
        "column": unit.column,
        "groups": unit.groups,
        "rows_per_group": unit.rows_per_group,
        "known": {column: list(values) for column, values in unit.known.items()},
    }
