"""Events of ``watch`` as instruments of Prometheus or OpenTelemetry: two hooks with the same instruments.

Each imports its library when it is made (the extra ``watch``). Labels are what an operator chose (datasets, operations,
rules, witnesses) and accounts, one for each grant in use; never a party's name. Values become floating-point numbers
here, and only here: nothing is decided by them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from trustcompute.broker import meter
from trustcompute.broker.watch import (
    BudgetLeft,
    BurnRate,
    Committed,
    Denied,
    Event,
    Hook,
    JobEnded,
    LeaseExpired,
    SplitView,
)
from trustcompute.errors import ParameterError

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter
    from prometheus_client import CollectorRegistry

COUNTERS: Final = {
    "trustcompute_jobs": ("Jobs that ended", ("state", "operation", "dataset")),
    "trustcompute_used": ("What was debited, in the unit's own integers", ("unit", "dataset")),
    "trustcompute_denials": ("Requests that were refused, by the first rule", ("rule", "dataset")),
    "trustcompute_leases_expired": ("Jobs whose lease ran out", ("state", "dataset")),
    "trustcompute_split_views": ("Times a witness held another log", ("witness",)),
}
GAUGES: Final = {
    "trustcompute_budget_left": ("What may still be reserved", ("account", "unit", "span")),
    "trustcompute_budget_seconds_left": (
        "How long a total lasts at the pace of the last hour",
        ("account", "unit"),
    ),
}
HISTOGRAM: Final = "trustcompute_commit_seconds"
HISTOGRAM_HELP: Final = "How long durable transactions took"
BUCKETS: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)  # seconds

Labels = Mapping[str, str]
Record = Callable[[str, float, Labels], None]


def prometheus(registry: CollectorRegistry | None = None) -> Hook:
    """A hook that keeps instruments in a registry, the library's own by default.

    Raises ``ParameterError`` where ``prometheus_client`` is not installed.
    """
    try:
        import prometheus_client  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise _missing("prometheus-client") from error
    where = registry if registry is not None else prometheus_client.REGISTRY
    counters = {
        name: prometheus_client.Counter(name, text, labels, registry=where)
        for name, (text, labels) in COUNTERS.items()
    }
    gauges = {
        name: prometheus_client.Gauge(name, text, labels, registry=where)
        for name, (text, labels) in GAUGES.items()
    }
    commits = prometheus_client.Histogram(HISTOGRAM, HISTOGRAM_HELP, registry=where, buckets=BUCKETS)
    return _hook(
        add=lambda name, value, labels: counters[name].labels(**labels).inc(value),
        set_=lambda name, value, labels: gauges[name].labels(**labels).set(value),
        observe=lambda _, value, labels: commits.observe(value),
    )


def opentelemetry(meter: Meter | None = None) -> Hook:
    """A hook that records to a meter, by default the global provider's named ``trustcompute``.

    Raises ``ParameterError`` where ``opentelemetry`` is not installed.
    """
    try:
        from opentelemetry import metrics  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise _missing("opentelemetry-api") from error
    given: Any = meter if meter is not None else metrics.get_meter("trustcompute")
    counters = {name: given.create_counter(name, description=text) for name, (text, _) in COUNTERS.items()}
    gauges = {name: given.create_gauge(name, description=text) for name, (text, _) in GAUGES.items()}
    commits = given.create_histogram(
        HISTOGRAM, unit="s", description=HISTOGRAM_HELP, explicit_bucket_boundaries_advisory=list(BUCKETS)
    )
    return _hook(
        add=lambda name, value, labels: counters[name].add(value, labels),
        set_=lambda name, value, labels: gauges[name].set(value, labels),
        observe=lambda _, value, labels: commits.record(value, labels),
    )


def _hook(*, add: Record, set_: Record, observe: Record) -> Hook:
    """What each event does to which instrument."""

    def hook(event: Event, /) -> None:
        match event:
            case JobEnded():
                labels = {"operation": event.operation, "dataset": event.dataset}
                add("trustcompute_jobs", 1, {"state": event.state.value} | labels)
                for unit, amount in meter.used(event.used):
                    add("trustcompute_used", amount, {"unit": unit, "dataset": event.dataset})
            case Denied():
                add("trustcompute_denials", 1, {"rule": event.rule, "dataset": event.dataset})
            case LeaseExpired():
                state = "armed" if event.armed else "reserved"
                add("trustcompute_leases_expired", 1, {"state": state, "dataset": event.dataset})
            case BudgetLeft():  # a BudgetLow is one too, and tells the same figure
                labels = {"account": event.account, "unit": event.unit, "span": event.span}
                set_("trustcompute_budget_left", event.left, labels)
            case BurnRate():
                labels = {"account": event.account, "unit": event.unit}
                set_("trustcompute_budget_seconds_left", event.seconds_left, labels)
            case SplitView():
                add("trustcompute_split_views", 1, {"witness": event.witness})
            case Committed():
                observe(HISTOGRAM, event.nanoseconds / 1e9, {})

    return hook


def _missing(package: str) -> ParameterError:
    return ParameterError(f"metrics need {package}: install trustcompute[watch]")
