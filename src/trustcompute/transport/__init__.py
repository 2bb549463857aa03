"""Bytes between organisations: Arrow Flight over mutual TLS. Carries frames and knows no protocol.

Who calls it: the node serves a ``Handler``; a session calls a ``Channel``.
"""

from trustcompute.transport.channel import Channel, Handler, LocalChannel
from trustcompute.transport.client import FlightChannel
from trustcompute.transport.server import FlightServer

__all__ = ["Channel", "FlightChannel", "FlightServer", "Handler", "LocalChannel"]
