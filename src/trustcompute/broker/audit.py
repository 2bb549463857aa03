"""The audit: everything a log and its book claim, recomputed from the entries alone.

For operators and regulators; reads a book (also while a node writes it) or an exported log, offline.
Recomputes the tree and every checkpoint, replays every entry against the rules the broker promises to keep,
rebuilds balances and statements, and compares them with the meter's tables. The first thing that is wrong
is named.
"""

from __future__ import annotations

import contextlib
import gc
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from trustcompute.broker import budget, credit, log, meter, rotation, standing, tiles
from trustcompute.broker.clearing import Clearing, Period
from trustcompute.broker.commands import ARMED_LEASE, RESERVED_LEASE
from trustcompute.broker.grant import Limit
from trustcompute.broker.job import JobRecord, JobState
from trustcompute.broker.log import Entry
from trustcompute.broker.meter import TOTAL, BalanceKey
from trustcompute.broker.notice import RULES, SUPERSEDED, topics
from trustcompute.broker.store import Reader
from trustcompute.broker.store.sqlite import BOOK_FILE, SqliteStore
from trustcompute.errors import AuditError, TrustcomputeError, VerificationError
from trustcompute.primitives import canonical, checkpoint, merkle
from trustcompute.primitives.checkpoint import Checkpoint, NoteKey
from trustcompute.primitives.signing import VerifyKey
from trustcompute.protocol.operation import MAX_AMOUNT, Usage

SPAN_ENTRIES: Final = tiles.SPAN * tiles.WIDTH
_BEFORE: Final = {
    "grant.suspended": (standing.ACTIVE,),
    "grant.resumed": (standing.SUSPENDED,),
    "grant.ending": (standing.ACTIVE, standing.SUSPENDED),
    "grant.ended": (standing.ENDING,),
}
_AFTER: Final = {
    "grant.suspended": standing.SUSPENDED,
    "grant.resumed": standing.ACTIVE,
    "grant.ending": standing.ENDING,
    "grant.ended": standing.ENDED,
}
_PARTIES: Final = ("asker", "recipient", "payer")
LEASES: Final = RESERVED_LEASE + ARMED_LEASE  # seconds from the reservation to the charge, at most
SPANS_AHEAD: Final = 8  # some 10 MB each, parsed


class EntryError(AuditError):
    """``index``: the first entry that is wrong."""

    def __init__(self, message: str, index: int) -> None:
        super().__init__(f"entry {index}: {message}")
        self.index = index


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What was found to be in order. jobs: by final state; balances: posted, by account, window and unit.

    meter: whether the book's tables were compared too (an exported log has none).
    """

    origin: str
    size: int
    root: bytes
    checkpoints: int
    entries: Mapping[str, int]
    jobs: Mapping[str, int]
    balances: Mapping[BalanceKey, int]
    periods: tuple[Period, ...]
    meter: bool


def audit(source: Path, key: NoteKey, *, known: Sequence[str] = (), processes: int = 1) -> AuditReport:
    """Audit a book's directory or an exported log. Raises ``AuditError`` at the first fault.

    key: of the log (``log.log_key``); known: signed checkpoints that others hold, for example in receipts:
    the log must contain all they cover, or it was cut off or rewritten; processes: that read, hash and parse
    an exported log for this one.
    """
    if (source / BOOK_FILE).exists():
        store = SqliteStore.read_only(source)
        try:
            with store.read() as reader:
                return audit_book(reader, key, known=known)
        finally:
            store.close()
    return _audit_tiles(source, key, known, processes)


def _audit_tiles(source: Path, key: NoteKey, known: Sequence[str], processes: int) -> AuditReport:
    """The hashes of all files first, then the replay: decoded by the processes, judged in order by this one."""
    _, signed = tiles.read_checkpoint(source, key)
    with _uncollected(), _executor(processes) as executor:
        tree = tiles.verify_tree(source, signed, executor)
        spans = [(str(source), signed.size, start) for start in range(0, signed.size, SPAN_ENTRIES)]
        replay = _Replay(key, tree)
        for first, found, error in _decoded(executor, spans):
            for index, fields in enumerate(found, start=first):
                replay.replay(Entry(index, b"", fields))
            if error is not None:
                raise error
    if not signed.size:
        raise AuditError("the log is empty: it lacks even the entry that opens one")
    replay.hold_against(known, signed.size)
    return replay.report(meter_compared=False, checkpoints=1)


Decoded = tuple[int, list[Mapping[str, Any]], AuditError | None]


def decode_span(span: tuple[str, int, int]) -> Decoded:
    """What an executor runs: index and members of the entries of up to 16 bundles, and why the next one is none."""
    directory, size, start = span
    found: list[Mapping[str, Any]] = []
    for first in range(start, min(start + SPAN_ENTRIES, size), tiles.WIDTH):
        bundle = tiles.read_bundle(Path(directory), first // tiles.WIDTH, min(tiles.WIDTH, size - first))
        for index, body in enumerate(bundle.entries, start=first):
            try:
                found.append(log.decode(index, body).fields)
            except AuditError as error:
                return start, found, AuditError(str(error))
    return start, found, None


def _decoded(executor: Executor | None, spans: Sequence[tuple[str, int, int]]) -> Iterator[Decoded]:
    """The spans in order; not more of them at once than memory is meant for."""
    if executor is None:
        yield from map(decode_span, spans)
        return
    ahead: deque[Future[Decoded]] = deque()
    for span in spans:
        ahead.append(executor.submit(decode_span, span))
        if len(ahead) == SPANS_AHEAD:
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


@contextlib.contextmanager
def _executor(processes: int) -> Iterator[Executor | None]:
    if processes < 2:
        yield None
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("forkserver"), initializer=gc.disable) as pool:
        yield pool


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector of cycles: none are made, and it would look at millions of objects again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_log(source: Path) -> list[Entry]:
    """The entries of a book's directory (also while a node writes it) or of an exported log, not audited.

    For statements (``clearing.Clearing.of``) and registers. Raises ``AuditError`` for what is no entry,
    ``StoreError`` or ``InputError`` where the source cannot be read.
    """
    if (source / BOOK_FILE).exists():
        store = SqliteStore.read_only(source)
        try:
            with store.read() as reader:
                bodies = [stored.body for stored in reader.entries()]
        finally:
            store.close()
    else:
        bodies = [stored.body for stored in tiles.read_unverified(source)]
    return [log.decode(index, body) for index, body in enumerate(bodies)]


def export(source: Path, target: Path) -> int:
    """Write the log of a book's directory as tiles, also while a node writes it; returns its size.

    Raises ``StoreError``, ``InputError``. What was signed is not verified: ``audit`` of the target does that.
    """
    store = SqliteStore.read_only(source)
    try:
        with store.read() as reader:
            tree = merkle.Tree(reader.leaves())
            tiles.write(target, reader.entries(), tree, reader.last_checkpoint() or "")
            return len(tree)
    finally:
        store.close()


def audit_book(reader: Reader, key: NoteKey, *, known: Sequence[str] = ()) -> AuditReport:
    """As ``audit``, for a view of a book."""
    entries = ((stored.body, stored.leaf) for stored in reader.entries())
    with _uncollected():
        replay = _Replay(key, first=_first_key(reader, key)).run(entries, reader.checkpoints(), known)
        _compare(replay, reader)
    return replay.report(meter_compared=True)


_Bound = tuple[str, int, int, int]  # account, and its limits in total, per day and per call


def _bound(account: str, limit: Limit) -> _Bound:
    total, per_day, per_call = (
        MAX_AMOUNT if bound is None else bound for bound in (limit.total, limit.per_day, limit.per_call)
    )
    return account, total, per_day, per_call


def _first_key(reader: Reader, key: NoteKey) -> NoteKey:
    """The key that opened the log: the oldest that was rotated, or the one that was given."""
    past = [each for state in rotation.STATES for each in reader.notices_in(state)]
    if not past:
        return key
    return NoteKey(key.name, VerifyKey.from_x(min(past, key=lambda each: each.entry).token))


class _Replay:
    """What the entries so far amount to."""

    def __init__(self, key: NoteKey, tree: merkle.Tree | None = None, first: NoteKey | None = None) -> None:
        """tree: of all entries, where they were checked against it before; first: the key that opened the log, where
        its checkpoints are known: ``key`` may then be any that the log had, else it is the last."""
        self._key = key
        self._first = first
        self._signer = first or key  # of the checkpoints at this place of the log
        self._owner = ""  # thumbprint of the key that the log belongs to at this place
        self._keys: dict[str, NoteKey] = {}  # all that it had so far, where it was handed over
        self._confirmed = True
        self._tree = tree or merkle.Tree()
        self._time = 0
        self._checkpoints = 0
        self._types: Counter[str] = Counter()
        self._limits: dict[str, dict[str, Limit]] = {}
        self.clearing = Clearing()
        self.grants: dict[str, str | None] = {}  # with their parents
        self.revoked: set[str] = set()
        self.jobs: dict[str, tuple[JobState, int]] = {}
        self.countersigned: dict[str, int] = {}
        # Keyed as BalanceKey: made a million times.
        self.balances: dict[tuple[str, int, str], int] = defaultdict(int)
        self._bounds: dict[tuple[tuple[str, ...], str], list[_Bound]] = {}  # by accounts and unit
        self._forms: dict[str, dict[budget.Form, int | None]] = {}  # of datasets, and until when in force
        self.notices: dict[str, tuple[str, int]] = {}  # state and entry, by name
        self._subjects: dict[str, str] = {}  # thumbprints, by grant
        self.credits: dict[
            str, dict[str, tuple[int, credit.Ceiling]]
        ] = {}  # open events: day and what they say
        self._published: dict[str, dict[str, Any]] = {}  # rules in force, by name
        self._references: set[tuple[str, str, int, str]] = set()  # of all rules that ever were
        self._rules: dict[str, Callable[[Entry], object]] = {
            "job.denied": self._ended,
            "job.voided": self._ended,
            "job.expired": self._ended,
            "log.opened": self._opened,
            "asset.registered": self._registered,
            "grant.issued": self._granted,
            "grant.accepted": self._granted,
            "grant.revoked": self._revocation,
            "grant.suspended": self._standing,
            "grant.resumed": self._standing,
            "grant.ending": self._standing,
            "grant.ended": self._standing,
            "grant.reviewed": self._reviewed,
            "rules.published": self._rules_published,
            "credit.lowered": self._lowered,
            "credit.repaired": self._repaired,
            "key.rotated": self._rotated,
            "key.confirmed": self._confirmation,
            "job.posted": self._posted,
            "job.forfeited": self._forfeited,
            "job.released": self._released,
            "job.countersigned": self._countersigned,
        }

    def run(
        self, entries: Iterable[tuple[bytes, bytes | None]], notes: Iterator[str], known: Sequence[str]
    ) -> _Replay:
        """Feed all entries, each with the leaf hash the book holds, if any, and all checkpoints in order."""
        note, agreed = self._next(notes), 0
        waiting: list[bytes] = []  # entries of one commit, read before they are believed
        for index, (body, leaf) in enumerate(entries):
            computed = merkle.leaf_hash(body)
            if leaf is not None and leaf != computed:
                raise EntryError("its bytes are not those that were hashed into the log", index)
            self._tree.append(computed)
            waiting.append(body)
            if note is not None and note.size == index + 1:
                if note.root != self._tree.root():
                    raise EntryError(f"from here to entry {index} the log is not what was signed", agreed)
                for number, each in enumerate(waiting, start=agreed):
                    self.replay(log.decode(number, each))
                waiting, agreed = [], index + 1
                self._checkpoints += 1
                note = self._next(notes)
        if note is not None or waiting or not agreed:
            raise AuditError(f"the log has {len(self._tree)} entries, and no checkpoint of just these")
        self.hold_against(known, agreed)
        return self

    def hold_against(self, known: Sequence[str], size: int) -> None:
        """Raises ``AuditError`` unless the log has all that these checkpoints cover."""
        given = self._key.key.thumbprint
        if given != self._owner and (self._first is None or given not in self._keys):
            raise EntryError(
                "the log was opened under another name or key, and not handed over to this one", 0
            )
        for held in (self._held(each) for each in known):
            if held.size > size or held.root != self._tree.root(held.size):
                raise AuditError(
                    f"another checkpoint of size {held.size} was signed: the log was rewritten or cut"
                )

    def _held(self, note: str) -> Checkpoint:
        """A checkpoint that somebody holds, by any key that the log had."""
        for key in self._keys.values():
            with contextlib.suppress(VerificationError):
                return checkpoint.verify(note, key)
        return checkpoint.verify(note, self._key)

    def report(self, *, meter_compared: bool, checkpoints: int | None = None) -> AuditReport:
        return AuditReport(
            origin=self._key.name,
            size=len(self._tree),
            root=self._tree.root(),
            checkpoints=self._checkpoints if checkpoints is None else checkpoints,
            entries=dict(self._types),
            jobs=Counter(state.value for state, _ in self.jobs.values()),
            balances={BalanceKey(*key): amount for key, amount in self.balances.items()},
            periods=tuple(closing.period for closing in self.clearing.closings),
            meter=meter_compared,
        )

    def _next(self, notes: Iterator[str]) -> Checkpoint | None:
        note = next(notes, None)
        return None if note is None else checkpoint.verify(note, self._signer)

    def replay(self, entry: Entry) -> None:
        """Take the next entry. Raises ``AuditError``."""
        index = entry.index
        if entry.time < self._time:
            raise EntryError("it is dated before the entry in front of it", index)
        if (index == 0) != (entry.type == "log.opened"):
            raise EntryError("a log begins with log.opened, and has no other", index)
        self._time = entry.time
        self._types[entry.type] += 1
        try:
            self._rules.get(entry.type, _nothing)(entry)
            self.clearing.feed(entry)
        except AuditError:
            raise
        except (KeyError, TypeError, ValueError, TrustcomputeError) as error:
            raise EntryError(f"a field is missing or malformed ({type(error).__name__})", index) from error

    def _opened(self, entry: Entry) -> None:
        self._owner = str(entry.fields["key"])
        strange = self._first is not None and self._owner != self._first.key.thumbprint
        if entry.fields["origin"] != self._key.name or strange:
            raise EntryError("the log was opened under another name or key", entry.index)

    def _rotated(self, entry: Entry) -> None:
        found = rotation.read(entry, self._key.name)
        if found.old.thumbprint != self._owner or not self._confirmed:
            raise EntryError("it hands over a log that belongs to another key", entry.index)
        self._owner, self._signer = found.new.thumbprint, NoteKey(self._key.name, found.new)
        for each in (found.old, found.new):
            self._keys[each.thumbprint] = NoteKey(self._key.name, each)
        state = rotation.COMPROMISED if found.compromised else rotation.RETIRED
        self.notices[rotation.name_of(found.old.thumbprint)] = state, entry.index
        self._confirmed = False

    def _confirmation(self, entry: Entry) -> None:
        if self._confirmed or VerifyKey.from_x(entry.fields["key"]).thumbprint != self._owner:
            raise EntryError("it confirms no rotation", entry.index)
        self._confirmed = True

    def _registered(self, entry: Entry) -> None:
        fields = entry.fields
        form = budget.Form(fields["asset"], fields.get("epoch", ""), "per_recipient" in fields)
        for name, document in ((form.limited, "limits"), (form.recipients, "per_recipient")):
            limits = _limits(fields.get(document, {}))
            # Lowering a limit does not undo what was used before: use must respect the highest so far.
            self._limits[name] = _highest(self._limits[name], limits) if name in self._limits else limits
        self._limits.setdefault(meter.dataset_account(form.dataset), {})
        forms = self._forms.setdefault(form.dataset, {})
        for other, until in forms.items():  # a job that was reserved before is debited as it was then
            forms[other] = entry.time if until is None else until
        forms[form] = None
        self._bounds.clear()

    def _granted(self, entry: Entry) -> None:
        grant = entry.fields["grant"]
        if grant in self.grants:
            raise EntryError("the grant was entered before", entry.index)
        parent = entry.fields.get("parent")
        if parent is not None and parent not in self.grants:
            raise EntryError("the grant's parent was not entered before it", entry.index)
        self.grants[grant] = parent
        if "subject" in entry.fields:  # missed only where a credit event asks for it
            self._subjects[grant] = entry.fields["subject"]
        self._limits[meter.grant_account(grant)] = _limits(entry.fields["limits"])

    def _chain(self, grant: str | None) -> Iterator[str]:
        """A grant and its ancestors: the links that are debited together."""
        while grant is not None:
            yield grant
            grant = self.grants[grant]

    def _revocation(self, entry: Entry) -> None:
        if entry.fields["grant"] in self.revoked:
            raise EntryError("the grant was revoked before", entry.index)
        self.revoked.add(entry.fields["grant"])

    def _standing(self, entry: Entry) -> None:
        name = topics(entry.fields["grant"])[0]
        state, _ = self.notices.get(name, (standing.ACTIVE, 0))
        if state not in _BEFORE[entry.type]:
            raise EntryError(f"the grant was {state} before", entry.index)
        self.notices[name] = _AFTER[entry.type], entry.index

    def _reviewed(self, entry: Entry) -> None:
        self.notices[topics(entry.fields["grant"])[1]] = standing.REVIEWED, entry.index

    def _rules_published(self, entry: Entry) -> None:
        kind, issuer, version, hash_ = (entry.fields[name] for name in ("kind", "issuer", "version", "hash"))
        name = f"{kind}/{issuer}"
        if version <= self._published.get(name, {"version": 0})["version"]:
            raise EntryError(f"a newer {kind} of the same issuer was in force", entry.index)
        self._published[name] = {"version": version, "hash": hash_}
        self._references.add((kind, issuer, version, hash_))
        for superseded in entry.fields.get("supersedes", ()):
            if self.notices.get(superseded, ("", 0))[0] != RULES:
                raise EntryError("it supersedes rules that were not in force", entry.index)
            self.notices[superseded] = SUPERSEDED, entry.index
        self.notices[name] = RULES, entry.index

    def _lowered(self, entry: Entry) -> None:
        ceiling = credit.Ceiling.model_validate(entry.fields["ceiling"])
        events = self.credits.setdefault(self._credited(entry), {})
        if ceiling.empty or entry.fields["token"] in events or len(events) == credit.MAX_OPEN:
            raise EntryError("it lowers nothing, or was recorded before", entry.index)
        events[entry.fields["token"]] = meter.day_of(entry.time), ceiling
        self.notices[credit.name_of(entry.fields["party"])] = credit.LOWERED, entry.index

    def _repaired(self, entry: Entry) -> None:
        events = self.credits.get(self._credited(entry), {})
        if events.pop(entry.fields["event"], None) is None:
            raise EntryError("it repairs no open credit event", entry.index)
        state = credit.LOWERED if events else credit.RESTORED
        self.notices[credit.name_of(entry.fields["party"])] = state, entry.index

    def _credited(self, entry: Entry) -> str:
        if entry.fields["by"] != self._owner:
            raise EntryError("a credit event is recorded by the log's owner", entry.index)
        return str(entry.fields["party"])

    def _in_credit(self, entry: Entry, usage: Usage, window: int) -> None:
        """Charges that were reserved on a later day than events that are still open were bound by them."""
        fields = entry.fields
        links = list(self._chain(fields["grant"]))
        for party in {*(self._subjects[link] for link in links), *(fields[name] for name in _PARTIES)}:
            if any(each.bar for each in self._ceilings(party, window)):
                raise EntryError("it was charged although a credit event barred a party to it", entry.index)
        for link in links:
            name = meter.grant_account(link)
            ceilings = self._ceilings(self._subjects[link], window)
            if not ceilings:
                continue
            for unit, amount in meter.used(usage):
                limit = credit.least(self._limits_of(name), ceilings).get(unit, meter.NO_LIMIT)
                _, total, per_day, per_call = _bound(name, limit)
                held = self.balances[name, TOTAL, unit], self.balances[name, window, unit]
                if held[0] > total or held[1] > per_day or amount > per_call:
                    raise EntryError(
                        f"it takes {name} beyond what a credit event left of {unit}", entry.index
                    )

    def _ceilings(self, party: str, window: int) -> list[credit.Ceiling]:
        return [ceiling for day, ceiling in self.credits.get(party, {}).values() if day < window]

    def _decided(self, entry: Entry) -> None:
        """By rules that were published before."""
        for each in entry.fields.get("rules", ()):
            if (each["kind"], each["issuer"], each["version"], each["hash"]) not in self._references:
                raise EntryError("it was decided by rules that the log does not know", entry.index)

    def _ended(self, entry: Entry) -> None:
        self._decided(entry)
        job, state = entry.fields["job"], JobState(entry.type.partition(".")[2])
        if job in self.jobs:
            raise EntryError(f"job {job} had ended before", entry.index)
        if entry.fields["grant"] not in self.grants:
            raise EntryError(f"job {job} ran under a grant that the log does not know", entry.index)
        self.jobs[job] = state, entry.index

    def _posted(self, entry: Entry) -> None:
        self._ended(entry)
        if not self.revoked.isdisjoint(self._chain(entry.fields["grant"])):
            raise EntryError("it was charged under a revoked grant", entry.index)
        for link in self._chain(entry.fields["grant"]):
            if self.notices.get(topics(link)[0], ("", 0))[0] == standing.ENDED:
                raise EntryError("it was charged under a grant that had ended", entry.index)
        self._debit(entry)

    def _forfeited(self, entry: Entry) -> None:
        self._ended(entry)
        self._debit(entry)

    def _debit(self, entry: Entry) -> None:
        fields = entry.fields
        usage, window = meter.parse_usage(fields["usage"]), canonical.parse_integer(fields["window"])
        accounts = fields["accounts"]
        links = [meter.grant_account(link) for link in self._chain(fields["grant"])]
        if accounts[: len(links)] != links or not self._is_of_dataset(accounts[len(links) :], entry):
            raise EntryError(
                "it was not debited to its grant, all its ancestors and the dataset", entry.index
            )
        named = tuple(accounts)
        for unit, amount in meter.used(usage):
            for bound in self._bounds_of(named, unit):
                name, total, per_day, per_call = bound
                for key, most in (((name, TOTAL, unit), total), ((name, window, unit), per_day)):
                    held = self.balances[key] = self.balances[key] + amount
                    if held > most or amount > per_call:
                        raise EntryError(f"it takes {name} beyond its limit of {unit}", entry.index)
        if self.credits:
            self._in_credit(entry, usage, window)

    def _is_of_dataset(self, accounts: list[str], entry: Entry) -> bool:
        """Whether these are the accounts of the dataset as it is, or was when the job was reserved at the latest."""
        fields = entry.fields
        return any(
            accounts == list(form.names(fields["recipient"] if form.by_recipient else ""))
            and (until is None or entry.time - until <= LEASES)
            for form, until in self._forms.get(fields["dataset"], {}).items()
        )

    def _bounds_of(self, accounts: tuple[str, ...], unit: str) -> list[_Bound]:
        found = self._bounds.get((accounts, unit))
        if found is None:
            found = self._bounds[accounts, unit] = [
                _bound(name, self._limits_of(name).get(unit, meter.NO_LIMIT)) for name in accounts
            ]
        return found

    def _limits_of(self, account: str) -> dict[str, Limit]:
        """Of a recipient's account, those of all recipients."""
        kind, at, _ = account.rpartition("@")
        return self._limits[kind + at if account.startswith("recipient:") else account]

    def _released(self, entry: Entry) -> None:
        self._posted_job(entry)

    def _countersigned(self, entry: Entry) -> None:
        job = self._posted_job(entry)
        if job in self.countersigned:
            raise EntryError(f"job {job} was countersigned before", entry.index)
        self.countersigned[job] = entry.index

    def _posted_job(self, entry: Entry) -> str:
        job = str(entry.fields["job"])
        if self.jobs.get(job, (None, 0))[0] is not JobState.POSTED:
            raise EntryError(f"job {job} was not charged before", entry.index)
        return job


def _compare(replay: _Replay, reader: Reader) -> None:
    """Raises ``AuditError`` unless the meter's tables say what the entries say."""
    jobs, countersigned = dict(replay.jobs), dict(replay.countersigned)
    pending: dict[BalanceKey, int] = defaultdict(int)
    for job in reader.all_jobs():
        if job.open:
            _expect(job.id not in replay.jobs, f"job {job.id} is {job.state} in the book, ended in the log")
            for key, amount in _holds(job):
                pending[key] += amount
            continue
        _expect(
            jobs.pop(job.id, None) == (job.state, job.entry)
            and countersigned.pop(job.id, None) == job.countersigned,
            f"job {job.id} is {job.state} in the book, which the log does not say",
        )
    _expect(not jobs, f"the log has jobs that the book lacks: {', '.join(sorted(jobs)[:3])}")
    held = reader.all_balances()
    used = {BalanceKey(*key) for key, amount in replay.balances.items() if amount}
    for key in {*held, *pending, *used}:
        balance = held.get(key, meter.Balance())
        _expect(
            (balance.posted, balance.pending) == (replay.balances.get(key, 0), pending.get(key, 0)),
            f"the {key.unit} of {key.account}, window {key.window}, are not what the entries add up to",
        )
    _expect(set(reader.grants(replay.grants)) == set(replay.grants), "the log has grants that the book lacks")
    _expect(set(reader.revocations(replay.revoked)) == replay.revoked, "the book lacks a revocation")
    held_notices = reader.notices(replay.notices)
    for party, events in replay.credits.items():
        said = credit.text_of(credit.Open(event, ceiling) for event, (_, ceiling) in events.items())
        notice = held_notices.get(credit.name_of(party))
        _expect(
            notice is not None and notice.token == said,
            "the book's open credit events are not those of the log",
        )
    notices = {name: (each.state, each.entry) for name, each in held_notices.items()}
    _expect(
        notices == replay.notices, "the book's rules or the standing of its grants are not those of the log"
    )


def _holds(job: JobRecord) -> Iterator[tuple[BalanceKey, int]]:
    for account in job.accounts:
        for unit, amount in job.reserved.items():
            for window in (job.window, TOTAL):
                yield BalanceKey(account, window, unit), amount


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise AuditError(message)


def _nothing(entry: Entry) -> None:
    """Entries that bind nobody to anything."""


def _limits(document: Mapping[str, Any]) -> dict[str, Limit]:
    return {unit: Limit.model_validate(limit) for unit, limit in document.items()}


def _highest(old: Mapping[str, Limit], new: Mapping[str, Limit]) -> dict[str, Limit]:
    """Per unit and span the higher of two limits, where both have one."""
    spans = ("total", "per_call", "per_day")
    found = {}
    for unit in old.keys() & new.keys():
        pairs = {span: (getattr(old[unit], span), getattr(new[unit], span)) for span in spans}
        found[unit] = Limit(**{span: None if None in pair else max(pair) for span, pair in pairs.items()})
    return found
