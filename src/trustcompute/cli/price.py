"""Price plans in files, and in words.

kind = "tiered"                  # free, conditional, per_use, tiered, annual, revenue_share
currency = "EUR"
unit = "rows"
window = "month"                 # over which tiers and allowances count: grant, month, year
tiers = [{ upto = 100000, rate = "0.05" }, { rate = "0.02" }]

[[split]]
party = "registry.example"
share = "7/10"

[[split]]
party = "public:education"       # earmarked; pool:NAME is divided by contribution
share = "3/10"
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from trustcompute.broker.grant import PricePlan, Share, explain_validation
from trustcompute.cli.settings import read_text
from trustcompute.errors import ParameterError

_SHARES = TypeAdapter(list[Share])


def read_price(path: Path) -> tuple[PricePlan, list[Share]]:
    """A plan and its split from a TOML file. Raises ``ParameterError`` naming the term that is wrong."""
    try:
        document = tomllib.loads(read_text(path))
        shares = _SHARES.validate_python(document.pop("split", []))
        return PricePlan.model_validate(document), shares
    except tomllib.TOMLDecodeError as error:
        raise ParameterError(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        raise ParameterError(explain_validation(error, str(path))[0]) from error


def price_in_words(price: PricePlan) -> str:
    """What use costs, on one line."""
    if price.currency is None:
        return "free"
    used = f"{price.per_call} a call + {price.per_row} a key"
    said = {
        "conditional": f"{_free(price)}; beyond that {used}",
        "tiered": f"{used} + {_tiers(price)}",
        "annual": f"{price.fee} a year + {used}",
        "revenue_share": f"{price.rate} of declared revenue + {used}",
    }.get(price.kind, used)
    return f"{said} (minor units of {price.currency})"


def _free(price: PricePlan) -> str:
    counted = [
        f"the first {amount:,} {unit} of a {price.window}"
        for unit, amount in (("calls", price.free_calls), ("keys", price.free_rows))
        if amount is not None
    ]
    return "free: " + ", ".join([*counted, *(f"for {purpose}" for purpose in price.free_for or ())])


def _tiers(price: PricePlan) -> str:
    tiers = [f"{t.rate} up to {t.upto:,}" if t.upto else f"{t.rate} beyond" for t in price.tiers or ()]
    unit = "calls" if price.unit == "calls" else "keys"
    return f"{unit} of a {price.window} at {', '.join(tiers)}"
