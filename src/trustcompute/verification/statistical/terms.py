"""What a holder publishes of its statistics, signed: which columns and groups, by which rules, in which units.

Called by ``tabulator``, the parties and the node, whose catalogue shows it. An answer is read by its terms alone, and
signed over their id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trustcompute.errors import ParameterError, VerificationError
from trustcompute.primitives import signing
from trustcompute.primitives.signing import SigningKey, TokenError, VerifyKey
from trustcompute.verification.statistical.network import Shape
from trustcompute.verification.statistical.rules import MAX_COLUMNS, MAX_LABELS, Rules, Way

TYPE: Final = "tc-statistics+jwt"
SUITE: Final = "tc-statistics/1 frequency dominance p-percent complementary"

Text = Annotated[str, Field(min_length=1, max_length=256)]
Value = Annotated[str | int | bool, Field(union_mode="left_to_right")]


class Terms(BaseModel):
    """by: values of every column to group by, in order; rest: those of them with one more group for all other rows;
    scales: decimal digits of every column that is added up. The others as in ``Rules``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    suite: Text = SUITE
    dataset: Text
    version: Text
    by: Annotated[
        dict[Text, Annotated[list[Value], Field(max_length=MAX_LABELS)]], Field(max_length=MAX_COLUMNS)
    ]
    rest: Annotated[list[Text], Field(max_length=MAX_COLUMNS)]
    scales: Annotated[dict[Text, Annotated[int, Field(ge=0, le=18)]], Field(max_length=MAX_COLUMNS)]
    signed: Annotated[list[Text], Field(max_length=MAX_COLUMNS)]
    contributor: Text | None
    min_frequency: int
    dominance: Annotated[list[int], Field(min_length=2, max_length=2)] | None
    p_percent: int

    @property
    def rules(self) -> Rules:
        """Raises ``ParameterError`` where they cannot be rules."""
        return Rules(
            by=self.by,
            columns=tuple(self.scales),
            signed=tuple(self.signed),
            contributor=self.contributor,
            min_frequency=self.min_frequency,
            dominance=None if self.dominance is None else (self.dominance[0], self.dominance[1]),
            p_percent=self.p_percent,
        )

    @property
    def ways(self) -> dict[str, Way]:
        return {name: Way(name, tuple(values), name in self.rest) for name, values in self.by.items()}

    def shape(self, by: tuple[str, ...]) -> Shape:
        """Of the table by these columns."""
        ways = self.ways
        return Shape(tuple(ways[name].groups for name in by))

    def sign(self, key: SigningKey) -> str:
        return signing.sign(TYPE, self.model_dump(mode="json"), key)


def of_rules(
    rules: Rules, ways: Mapping[str, Way], scales: Mapping[str, int], *, dataset: str, version: str
) -> Terms:
    """What is published of a table that was opened."""
    return Terms(
        dataset=dataset,
        version=version,
        by={name: list(way.values) for name, way in ways.items()},
        rest=[name for name, way in ways.items() if way.rest],
        scales=dict(scales),
        signed=sorted(rules.signed),
        contributor=rules.contributor,
        min_frequency=rules.min_frequency,
        dominance=None if rules.dominance is None else list(rules.dominance),
        p_percent=rules.p_percent,
    )


def verify(token: str, key: VerifyKey) -> Terms:
    """The terms that ``key`` signed. Raises ``VerificationError``."""
    try:
        return _checked(signing.verify(token, TYPE, key))
    except TokenError as error:
        raise VerificationError(f"the terms of statistics do not verify: {error}") from error


def _checked(claims: dict[str, Any]) -> Terms:
    try:
        found = Terms.model_validate(claims)
        rules = found.rules
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise VerificationError(f"the terms' {where} is not in the agreed form: {first['msg']}") from None
    except ParameterError as error:
        raise VerificationError(f"the terms cannot be rules: {error}") from error
    if found.suite != SUITE or not set(found.rest) <= set(rules.by):
        raise VerificationError(f"the terms are of another suite than {SUITE}")
    return found
