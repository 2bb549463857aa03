"""A private PostgreSQL server from the system's binaries: started for the tests, listening on a socket only."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

USER = "trustcompute"


def binaries() -> Path | None:
    """Where ``initdb`` and ``pg_ctl`` are: on the path, or where Debian keeps those of each version."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    return versions[-1].parent if versions else None


def why_not() -> str:
    """Why no server can be started, or nothing."""
    if binaries() is None:
        return "PostgreSQL is not installed (Debian: postgresql)"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed (the extra postgres)"
    if os.geteuid() == 0 and _account() is None:
        return "PostgreSQL does not run as root, and there is no account postgres or nobody to run it as"
    return ""


def _account() -> str | None:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return None


@dataclass(frozen=True)
class Server:
    folder: Path

    def connect(self, schema: str = "public") -> str:
        """A connection string."""
        return f"host={self.folder} user={USER} dbname=postgres options='-c search_path={schema}'"

    def new_schema(self) -> str:
        """A connection string for an empty schema of its own."""
        import psycopg

        name = f"s{secrets.token_hex(8)}"
        with psycopg.connect(self.connect(), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return self.connect(name)


@contextlib.contextmanager
def server(*, durable: bool = False) -> Iterator[Server]:
    """Start a server, and stop it. durable: with fsync, as the campaigns and benchmarks want it."""
    folder = Path(tempfile.mkdtemp(prefix="tc-pg-"))
    account = _account() if os.geteuid() == 0 else None
    if account is not None:
        shutil.chown(folder, account, pwd.getpwnam(account).pw_gid)
    tools = binaries()
    assert tools is not None

    def run(*command: str) -> None:
        group = pwd.getpwnam(account).pw_gid if account else None
        subprocess.run(
            [str(tools / command[0]), *command[1:]],
            check=True,
            cwd=folder,
            user=account,
            group=group,
            extra_groups=[] if account else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=120,
        )

    data = folder / "data"
    options = f"-c listen_addresses='' -k {folder} -c max_connections=120"
    options += "" if durable else " -c fsync=off"
    try:
        run("initdb", "-D", str(data), "-A", "trust", "-U", USER, "-E", "UTF8", "--no-sync")
        run("pg_ctl", "-D", str(data), "-o", options, "-w", "-l", str(folder / "server.log"), "start")
        try:
            yield Server(folder)
        finally:
            run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
