"""What a process has sent over TCP, and the most memory it has held. Linux, standard library only.

Counting inside the kernel measures every system alike, whatever library it sends with: payload bytes of TCP,
so with TLS and gRPC framing, without TCP/IP headers and retransmissions.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

# struct tcp_info of linux/tcp.h: tcpi_bytes_sent and tcpi_bytes_retrans, since Linux 4.19.
_SENT = struct.Struct("=QQ")
_SENT_OFFSET = 200
_INFO_SIZE = _SENT_OFFSET + _SENT.size


def tcp_bytes_sent() -> dict[int, int]:
    """Bytes sent so far on each TCP socket this process holds open, by the socket's inode."""
    sent = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are wanted, and one is already gone
        try:
            inode = os.stat(f"/proc/self/fd/{name}").st_ino  # noqa: PTH116
            with socket.socket(fileno=os.dup(int(name))) as connection:
                if connection.family not in (socket.AF_INET, socket.AF_INET6):
                    continue
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
        except OSError:
            continue
        total, again = _SENT.unpack_from(info, _SENT_OFFSET)
        sent[inode] = total - again
    return sent


def sent_since(before: dict[int, int]) -> int:
    """Bytes sent since ``before``, on the sockets that are still open."""
    return sum(total - before.get(inode, 0) for inode, total in tcp_bytes_sent().items())


def peak_rss_mb() -> float:
    """The most resident memory this process has held, in MB (VmHWM)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    raise OSError("the kernel does not report VmHWM")
