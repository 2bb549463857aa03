"""Files intersected between two processes, killed on the way: the same rows, charged once, nothing finished run again.

    PYTHONPATH=src python tests/node/campaign_resume.py --seeds 100

For each seed a node and a consumer talk over the network; each is killed (SIGKILL, by itself, at an event that the seed
chose: before or after a write, a turn, an answer, so at the boundaries of runs and inside them) up to three times, and
started again until the rows are there. The tests run a few seeds. This process forks, so it speaks to no node itself.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trustcompute import kernels
from trustcompute.broker import grant as grants
from trustcompute.broker.broker import Broker
from trustcompute.broker.grant import AssetClaim, Bounds
from trustcompute.broker.outbox import Outbox
from trustcompute.broker.writer import Writer
from trustcompute.errors import Conflict, JobForfeited, JobInterrupted, ParameterError, TransportError
from trustcompute.node import Dataset, Node, bulk, client, connect, job
from trustcompute.node import runs as node_runs
from trustcompute.node.state import StateStore
from trustcompute.primitives.identity import CertificateAuthority, Identity
from trustcompute.protocol.operation import OutputForm
from trustcompute.transport import FlightChannel

RUNS = 5
KEYS = 400
EVENTS = {"node": 40, "consumer": 60}  # about as many as a job has
INTERRUPTED, ENDED, NOTHING = 11, 12, 13  # how a consumer ends that was not killed
MAX_STARTS = 30


def protocol() -> str:
    return "psi.vole.v1" if kernels.active().name == "native" else "psi.dh.v1"


def prepare(folder: Path) -> None:
    """Identities, a grant and two files; 200 keys shared, some of them twice or null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    authority = CertificateAuthority.create("campaign")
    node, consumer = authority.issue("node.example"), authority.issue("consumer.example")
    node.save(folder / "node")
    consumer.save(folder / "consumer")
    claims = grants.new_grant(
        issuer=node.thumbprint,
        audience=node.name,
        subject=consumer.name,
        subject_key=consumer.thumbprint,
        asset=AssetClaim(id="keys", version="1", classification="general", grade="general", personal=False),
        operations={protocol(): Bounds()},
        purposes=["campaign"],
        outputs=[OutputForm.MATCHED_IDS],
        contingency="0" * 64,
        now=int(time.time()),
    )
    (folder / "grant").write_text(grants.sign(claims, node.key))
    ours = [f"k{i}" if i % 10 else None for i in range(KEYS)] + ["k1", f"k{KEYS - 1}"]
    theirs = [f"k{i}" for i in range(KEYS // 2, KEYS + KEYS // 2)]
    pq.write_table(pa.table({"id": ours, "row": range(len(ours))}), folder / "ours.parquet")
    pq.write_table(pa.table({"id": theirs}), folder / "theirs.parquet")
    matched = [at for at, key in enumerate(ours) if key is not None and key in set(theirs)]
    (folder / "expected").write_text(",".join(map(str, matched)))


class Death:
    """Kills this process at the n-th event; 0: never."""

    def __init__(self, at: int) -> None:
        self._at, self._count, self._lock = at, 0, threading.Lock()

    def event(self) -> None:
        with self._lock:
            self._count += 1
            if self._count == self._at:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, kind: Any, *names: str) -> None:
        """An event before each call of these functions, and one after it."""
        for name in names:
            setattr(kind, name, self._wrapped(getattr(kind, name)))

    def _wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            self.event()
            result = real(*arguments, **options)
            self.event()
            return result

        return wrapped


def be_node(inputs: Path, folder: Path, deadly: int) -> None:
    """A node until it is killed; its address goes to ``url``."""
    death = Death(deadly)
    death.around(Writer, "commit")
    death.around(Outbox, "write")
    death.around(job.ProviderJob, "answer", "_post")
    identity = Identity.load(inputs / "node")
    dataset = Dataset("keys", inputs / "theirs.parquet", version="1", keys=["id"], stored=folder / "digests")
    broker = Broker.open(folder / "book", identity)
    server = Node(identity, broker, [dataset]).serve()
    (folder / "url.tmp").write_text(server.url)
    (folder / "url.tmp").rename(folder / "url")
    while True:
        signal.pause()


def be_consumer(inputs: Path, folder: Path, deadly: int, resume: bool) -> int:
    """One attempt at the whole job; which runs it begins and has kept goes to ``told``."""
    death = Death(deadly)
    told = os.open(folder / "told", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    attempted, note = node_runs.JobRuns._attempted, StateStore.note

    def attempt(self: Any, run: int, number: int) -> Any:
        os.write(told, f"begun {self.job} {run}\n".encode())
        return attempted(self, run, number)

    def kept(self: Any, name: str, kind: Any, run: int, data: bytes) -> None:
        note(self, name, kind, run, data)
        if kind == "found":
            os.write(told, f"kept {name} {run}\n".encode())

    node_runs.JobRuns._attempted, StateStore.note = attempt, kept  # type: ignore[method-assign]
    death.around(FlightChannel, "exchange")
    death.around(StateStore, "_write", "forget")
    death.around(bulk._Kept, "_write", "forget")
    death.around(bulk, "store", "write_rows")
    client.RETRY_SECONDS = (0.05, 0.1)  # type: ignore[assignment,misc]
    try:
        with connect(
            (folder / "url").read_text(),
            identity=Identity.load(inputs / "consumer"),
            grant=(inputs / "grant").read_text(),
            state=folder / "jobs",
        ) as session:
            session.intersect_file(
                "keys",
                inputs / "ours.parquet",
                on="id",
                out=folder / "out.parquet",
                runs=RUNS,
                protocol=protocol(),  # type: ignore[arg-type]
                resume=resume,
            )
    except (JobInterrupted, TransportError):
        return INTERRUPTED
    except (JobForfeited, Conflict):  # not charged: the same command begins a new job
        return ENDED
    except ParameterError as error:
        if "nothing to go on with" in str(error):
            return NOTHING
        raise
    return 0


def forked(function: Callable[..., int | None], *arguments: Any) -> int:
    """A child's process id."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        code = function(*arguments) or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def one(inputs: Path, folder: Path, seed: int) -> Counter[str]:
    """One seed to its end; what happened on the way. Fails where a promise was broken."""
    chance, happened = random.Random(seed), Counter[str]()
    deaths = {side: [chance.randint(1, EVENTS[side]) for _ in range(chance.randint(0, 3))] for side in EVENTS}
    resume, node = False, 0
    try:
        for _ in range(MAX_STARTS):
            if not node or os.waitpid(node, os.WNOHANG)[0]:
                happened["nodes killed"] += bool(node)
                (folder / "url").unlink(missing_ok=True)
                node = forked(be_node, inputs, folder, deaths["node"].pop() if deaths["node"] else 0)
                if not listening(folder, node):
                    happened["nodes killed"], node = happened["nodes killed"] + 1, 0
                    continue
            deadly = deaths["consumer"].pop() if deaths["consumer"] else 0
            status = os.waitpid(forked(be_consumer, inputs, folder, deadly, resume), 0)[1]
            code = -1 if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            assert code in (-1, 0, INTERRUPTED, ENDED, NOTHING), f"seed {seed}: ended with {code}"
            happened["consumers killed"] += code == -1
            happened["begun anew"] += code == ENDED
            if code == 0 or (code == NOTHING and (folder / "out.parquet").exists()):
                break
            resume = code != NOTHING
            time.sleep(0.05)  # a node that is dying is not asked again at once
        else:
            raise AssertionError(f"seed {seed}: not finished after {MAX_STARTS} starts")
    finally:
        if node:
            os.kill(node, signal.SIGKILL)
            os.waitpid(node, 0)
    status = os.waitpid(forked(check, inputs, folder), 0)[1]
    assert status == 0, f"seed {seed}: see above"
    return happened


def listening(folder: Path, node: int) -> bool:
    """Wait for its address; False if it was killed before."""
    while not (folder / "url").exists():
        if os.waitpid(node, os.WNOHANG)[0]:
            return False
        time.sleep(0.01)
    return True


def check(inputs: Path, folder: Path) -> None:
    """The rows of a plain join; one charge; a run that was kept was not begun again; nothing left behind."""
    import pyarrow.parquet as pq

    expected = [int(row) for row in (inputs / "expected").read_text().split(",")]
    assert pq.read_table(folder / "out.parquet")["row"].to_pylist() == expected
    kept: set[str] = set()
    for line in (folder / "told").read_text().splitlines():
        what, which = line.split(" ", 1)
        assert what == "kept" or which not in kept, f"a finished run was run again: {which}"
        if what == "kept":
            kept.add(which)
    with Broker.open(folder / "book", Identity.load(inputs / "node")) as broker:
        report = broker.audit()
        types = Counter(entry.type for entry in broker.entries())
    assert report.jobs.get("posted") == 1, report.jobs
    assert types["job.posted"] == 1
    assert types["job.released"] == RUNS - 1
    assert not [path for path in (folder / "jobs" / "files").iterdir() if path.suffix != ".lock"]


def campaign(folder: Path, seeds: range) -> Counter[str]:
    """What happened in all seeds."""
    inputs = folder / "inputs"
    inputs.mkdir()
    assert os.waitpid(forked(prepare, inputs), 0)[1] == 0
    happened: Counter[str] = Counter()
    for seed in seeds:
        place = folder / str(seed)
        place.mkdir()
        happened += one(inputs, place, seed)
        happened["finished"] += 1
    return happened


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trustcompute-resume-") as folder:
        found = campaign(Path(folder), range(options.first, options.first + options.seeds))
    print(", ".join(f"{name} {count}" for name, count in sorted(found.items())), end="; ")
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
