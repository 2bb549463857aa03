"""Labels over a node: what a holder offers of a dataset, what a job sends of it, and what its asker makes of that.

Called by ``dataset``, ``computation`` and ``intersection``. A holder says which columns it offers, and how many bytes a
value of each may take; the catalogue tells both, so that sizes on the wire tell nothing of values. Where rows of the
dataset repeat a key, the first one is the key's label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from trustcompute.errors import ParameterError, RemoteProtocolError, TableError
from trustcompute.node.documents import CatalogEntry
from trustcompute.protocol.operation import Params
from trustcompute.psi.alignment import rows_in_order
from trustcompute.psi.matching import U8
from trustcompute.tables import Table
from trustcompute.tables.labels import (
    Form,
    LabelColumn,
    LabelKind,
    check_fits,
    decode,
    encode,
    form_of,
    row_bytes,
)

if TYPE_CHECKING:
    from trustcompute.node.dataset import HeldDataset


def offered(table: Table, widths: Mapping[str, int]) -> Form:
    """What a holder offers, checked against every value. Raises ``TableError``."""
    if not widths:
        return ()
    form = form_of(table, widths)
    check_fits(table, form)
    return form


def entries(form: Form) -> list[dict[str, Any]]:
    """For the catalogue."""
    return [{"name": column.name, "kind": str(column.kind), "width": column.width} for column in form]


def check(held: HeldDataset, params: Params) -> None:
    """Raise ``ParameterError`` where a request asks for labels that are not offered, or of another width."""
    if "labels" in params and row_bytes(_named(held.labels, params["labels"])) != params["label_bytes"]:
        raise ParameterError("label_bytes is not what these labels take: see the catalogue")


def labelled(held: HeldDataset, params: Params) -> Callable[[], U8] | None:
    """Gives the labels of all distinct keys, uint8[d, label_bytes], when they are wanted; None where none are asked."""
    if "labels" not in params:
        return None
    form, keys = _named(held.labels, params["labels"]), held.keys(params["columns"])
    return lambda: encode(held.table, rows_in_order(keys, np.arange(len(keys)), "first"), form)


def asked(entry: CatalogEntry, names: Sequence[str]) -> dict[str, Any]:
    """Parameters that ask for labels; none where none are."""
    if not names:
        return {}
    return {"labels": list(names), "label_bytes": row_bytes(form_in(entry, names))}


def form_in(entry: CatalogEntry, names: Sequence[str]) -> Form:
    """The form of labels that the catalogue offers. Raises ``ParameterError``, ``RemoteProtocolError``."""
    try:
        form = tuple(LabelColumn(one.name, LabelKind(one.kind), one.width) for one in entry.labels)
    except (TableError, ValueError) as error:
        raise RemoteProtocolError("the node's catalogue has labels we cannot read") from error
    return _named(form, names)


def received(labels: U8, form: Form) -> pa.Table:
    """What a peer sent, decrypted: one row a key that matches. Raises ``RemoteProtocolError``."""
    try:
        return decode(labels, form)
    except TableError as error:
        raise RemoteProtocolError(f"the node sent labels we cannot read: {error}") from error


def _named(form: Form, names: Sequence[str]) -> Form:
    by_name = {column.name: column for column in form}
    for name in names:
        if name not in by_name:
            known = ", ".join(repr(known) for known in by_name) or "none"
            raise ParameterError(f"the dataset offers no label {name!r}; it offers: {known}")
    return tuple(by_name[name] for name in names)
