"""What a node answers about authority: what would be allowed (``explain``), orders about grants, new rules.

Called by ``server`` and ``session``. An explanation is for the holder of a grant, whatever its standing, and costs
nothing. An order is carried out for whoever brings it: its signature says whose it is. Rules are taken from the
node's operator alone, that is over a connection under the node's own name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError

from trustcompute.broker import credit
from trustcompute.broker.broker import Broker
from trustcompute.broker.grant import explain_validation
from trustcompute.broker.request import Request
from trustcompute.broker.rules import MAX_RULES
from trustcompute.errors import GrantError, ParameterError, Refused
from trustcompute.node.documents import Count, Document, GrantToken, Name, Quote, Token
from trustcompute.primitives import canonical
from trustcompute.transport import Channel

if TYPE_CHECKING:
    from trustcompute.node.server import Node

Sentence = Annotated[str, Field(max_length=2000)]


class ExplainRequest(Document):
    """request: the claims of a request, which nobody has signed."""

    grant: GrantToken
    request: dict[str, Any]


class ReasonEntry(Document):
    rule: Name
    field: Name
    owner: Name
    fix: Sentence


class VerdictEntry(Document):
    """What one rule says: kept, in words, is what it is about; reasons: why it refuses."""

    rule: Name
    allowed: bool
    kept: Sentence
    reasons: Annotated[list[ReasonEntry], Field(max_length=4096)]


class Explained(Document):
    """What would be decided, rule by rule, by which versions, at which price, and what is left of the grant."""

    allowed: bool
    verdicts: Annotated[list[VerdictEntry], Field(max_length=256)]
    versions: dict[Name, Sentence]
    quote: Quote


class OrderRequest(Document):
    """grant: the token, or the chain down to the link that the order is about."""

    order: Token
    grant: GrantToken


class Ordered(Document):
    """What was carried out, on which grant."""

    do: Name
    grant: Name


class RulesRequest(Document):
    rules: Annotated[str, Field(max_length=MAX_RULES)]


class RulesTaken(Document):
    kind: Name
    version: Count


def explain(node: Node, peer: str, body: bytes) -> bytes:
    asked = ExplainRequest.parse(body)
    try:
        grant = node.broker.verify(asked.grant)
        if grant.claims.sub != peer:
            raise GrantError(f"the grant is for {grant.claims.sub}, not for {peer}", "sub")
    except GrantError:
        node.broker.count_failure(peer)
        raise
    try:
        request = Request.model_validate(asked.request, by_alias=True, by_name=False)
    except ValidationError as error:
        raise ParameterError(explain_validation(error, "request")[0]) from None
    found = node.broker.explain(grant, request, node.computation(request.op).operation)
    return canonical.dumps(found.to_document())


def order(node: Node, peer: str, body: bytes) -> bytes:
    asked = OrderRequest.parse(body)
    try:
        done = node.broker.order(asked.order, asked.grant)
    except GrantError:
        node.broker.count_failure(peer)
        raise
    node.contingency.ordered(done)
    return Ordered(do=done.claims.do, grant=done.claims.grant).encode()


def publish(node: Node, peer: str, body: bytes) -> bytes:
    asked = RulesRequest.parse(body)
    if peer != node.identity.name:
        raise Refused(
            "rules are taken from the node's operator only",
            rule="operator",
            field="peer",
            owner=node.identity.name,
            fix="send them to the operator, who decides whether they are published",
        )
    return publish_to(node.broker, asked.rules).encode()


def publish_to(broker: Broker, token: str) -> RulesTaken:
    """A deny-list, a policy or a credit event."""
    if credit.is_event(token):
        event = broker.credit(token)
        return RulesTaken(kind="credit", version=event.number)
    rules = broker.publish(token)
    return RulesTaken(kind=rules.kind, version=rules.version)


# The other side


def ask_explanation(channel: Channel, grant: str, request: Request) -> Explained:
    body = ExplainRequest(grant=grant, request=request.to_document()).encode()
    return Explained.parse(channel.action("explain", body))


def give_order(channel: Channel, token: str, grant: str) -> Ordered:
    """Bring a signed order to a node. Raises what the node raises: ``GrantError``, ``Conflict``."""
    return Ordered.parse(channel.action("order", OrderRequest(order=token, grant=grant).encode()))


def send_rules(channel: Channel, token: str) -> RulesTaken:
    """Publish rules at one's own node while it runs."""
    return RulesTaken.parse(channel.action("publish", RulesRequest(rules=token).encode()))
