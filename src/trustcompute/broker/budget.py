"""A dataset's own budgets: what all grantees together, and each recipient, may take of it, epoch by epoch.

Beside its grants, a job is debited to accounts of the dataset, since grantees can pool what they learn, and one
recipient can hold several grants:

    dataset:<id>                         all use of it ever; with epochs, unlimited and for the eye only
    dataset:<id>#<epoch>                 ``Asset.limits``, within one epoch of the data
    recipient:<id>[#<epoch>]@<key>       ``Asset.per_recipient``, of whoever receives, by thumbprint

A budget is fresh only where the data are: under an epoch's name that was not used before. Going back to an old name
goes back to its balances. Called by ``commands`` and ``writer``; ``audit`` checks charges with the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from trustcompute.broker import meter
from trustcompute.broker.grant import Limit
from trustcompute.broker.meter import TOTAL, Account, Balance, BalanceKey
from trustcompute.broker.policy import Asset
from trustcompute.protocol.operation import MAX_AMOUNT


@dataclass(frozen=True, slots=True)
class Form:
    """What decides to which accounts use of a dataset is debited."""

    dataset: str
    epoch: str = ""
    by_recipient: bool = False

    @classmethod
    def of(cls, asset: Asset) -> Form:
        return cls(asset.id, asset.epoch, bool(asset.per_recipient))

    @property
    def limited(self) -> str:
        """The account that ``Asset.limits`` are about."""
        return _in_epoch(meter.dataset_account(self.dataset), self.epoch)

    @property
    def recipients(self) -> str:
        """What the names of recipients' accounts begin with."""
        return _in_epoch(f"recipient:{self.dataset}", self.epoch) + "@"

    def names(self, recipient: str) -> tuple[str, ...]:
        """The accounts that a job is debited to, in order. recipient: thumbprint."""
        found = [meter.dataset_account(self.dataset)]
        if self.epoch:
            found.append(self.limited)
        if self.by_recipient:
            found.append(self.recipients + recipient)
        return tuple(found)


def accounts(asset: Asset, recipient: str, owner: str) -> list[Account]:
    """The dataset's accounts with their limits. owner: name of the node, which can change them."""
    form = Form.of(asset)
    limits: dict[str, Mapping[str, Limit]] = {
        form.limited: asset.limits,
        form.recipients + recipient: asset.per_recipient,
    }
    return [Account(name, limits.get(name, {}), owner, shared=True) for name in form.names(recipient)]


@dataclass(frozen=True, slots=True)
class Line:
    """One balance of a dataset for all time. account: see the module; posted: used; pending: reserved."""

    account: str
    unit: str
    posted: int
    pending: int
    limit: int | None

    @property
    def left(self) -> int | None:
        return None if self.limit is None else max(self.limit - self.posted - self.pending, 0)


def lines(dataset: str, balances: Mapping[BalanceKey, Balance]) -> list[Line]:
    """All accounts of a dataset, of every epoch and recipient, in order of their names and units."""
    return sorted(_lines(dataset, balances), key=lambda line: (line.account, line.unit))


def _lines(dataset: str, balances: Mapping[BalanceKey, Balance]) -> Iterator[Line]:
    whole = {meter.dataset_account(dataset)}
    starts = (f"dataset:{dataset}#", f"recipient:{dataset}#", f"recipient:{dataset}@")
    for key, balance in balances.items():
        if key.window == TOTAL and (key.account in whole or key.account.startswith(starts)):
            limit = None if balance.limit == MAX_AMOUNT else balance.limit
            yield Line(key.account, key.unit, balance.posted, balance.pending, limit)


def names_of(assets: Iterable[Asset], recipients: Iterable[str]) -> set[str]:
    """Every account that jobs on these datasets for these recipients may be debited to."""
    whom = tuple(recipients) or ("",)
    return {name for asset in assets for whose in whom for name in Form.of(asset).names(whose)}


def _in_epoch(name: str, epoch: str) -> str:
    return f"{name}#{epoch}" if epoch else name
