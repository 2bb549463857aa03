"""One started process of a benchmark: ``python -m benchmarks.party MODULE``, driven over stdin and stdout.

The harness starts one per role. Each sets itself up, says so, waits for the word, makes the one call that is
timed, and stays alive with its sockets open until every party is done, so that each can be counted. Runs in
the peer's interpreter: standard library only.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any, TextIO

from benchmarks.system import Job
from benchmarks.wire import peak_rss_mb, sent_since, tcp_bytes_sent


def _say(out: TextIO, **message: Any) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()


def _await(word: str) -> None:
    line = sys.stdin.readline().strip()
    if line != word:
        raise SystemExit(f"expected {word!r} from the harness, got {line!r}")


def main(module: str) -> None:
    # The measured library may print; the harness's channel must not hear it.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    system = importlib.import_module(module)
    job = Job.load(sys.stdin.readline())
    with system.party(job) as call:
        before = tcp_bytes_sent()
        _say(out, ready=system.version())
        _await("go")
        started, worked = time.perf_counter(), time.process_time()
        output = call()
        seconds, cpu = time.perf_counter() - started, time.process_time() - worked
        milliseconds = getattr(call, "milliseconds", {})
        _say(out, seconds=seconds, cpu=cpu, output=output, milliseconds=milliseconds)
        _await("finish")
        _say(out, bytes_sent=sent_since(before), peak_rss_mb=peak_rss_mb())
        _await("close")


if __name__ == "__main__":
    main(sys.argv[1])
