"""Flight over mutual TLS: who is let in, what crosses, and how errors come back."""

from __future__ import annotations

import threading
import time
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import flight  # a hostile client speaks Flight directly

from trustcompute.errors import Refused, RemoteProtocolError, TransportError, TrustcomputeError
from trustcompute.primitives.identity import CertificateAuthority
from trustcompute.protocol.message import Address, Message, encode, parse_header
from trustcompute.transport import FlightChannel, FlightServer, wire

AUTHORITY = CertificateAuthority.create("test authority")
NODE = AUTHORITY.issue("node.example")
CLIENT = AUTHORITY.issue("client.example")


def frame(values, kind="data", last=True):
    return encode(
        Message(kind, {"value": values}), Address("0" * 32, 0, 0, "client"), last=last, releases=False
    )


class Echo:
    """Answers with what it got; ``limit`` is the largest body it agrees to."""

    def __init__(self):
        self.peers, self.limit = [], 2**30

    def action(self, peer, name, body):
        self.peers.append(peer)
        if name == "refuse":
            raise Refused("no", rule="purpose", field="purpose", owner="holder", fix="ask for another")
        if name == "crash":
            raise ZeroDivisionError("secret detail")
        return body[::-1]

    def exchange(self, peer, descriptor, incoming):
        self.peers.append(peer)
        answer = []
        for one in incoming:
            size = parse_header(one.header).body_size
            if size > self.limit:
                raise RemoteProtocolError("too large a body")
            body = one.body(size)
            answer.append(frame(np.frombuffer(body, np.uint8), last=False))
        if descriptor == b"stall":
            time.sleep(3)
        return answer


@pytest.fixture
def echo():
    handler = Echo()
    with FlightServer(handler, NODE) as server:
        handler.server = server
        yield handler


@pytest.fixture
def channel(echo):
    channel = FlightChannel(echo.server.url, CLIENT, peer="node.example", action_seconds=5, turn_seconds=20)
    yield channel
    channel.close()


def bodies(incoming):
    return [bytes(one.body(parse_header(one.header).body_size)) for one in incoming]


def test_the_peer_is_the_name_in_the_certificate(echo, channel):
    assert channel.action("reverse", b"abc") == b"cba"
    assert bodies(channel.exchange(b"", [])) == []
    assert echo.peers == ["client.example", "client.example"]


@pytest.mark.parametrize("size", [0, 1, wire.BATCH - 1, wire.BATCH, wire.BATCH + 1, 3 * wire.BATCH + 5])
def test_frames_of_any_size_arrive_whole(channel, size):
    values = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    sent = [frame(values), frame(values[:7])]
    assert bodies(channel.exchange(b"", sent)) == [values.tobytes(), values[:7].tobytes()]


def test_a_message_of_several_columns_is_one_body(channel):
    columns = {
        "a": np.arange(5, dtype=np.int64),
        "b": np.arange(9, dtype=np.uint8).reshape(3, 3),
        "c": np.zeros(0, np.uint8),
    }
    sent = encode(Message("data", columns), Address("0" * 32, 0, 0, "client"), last=True, releases=False)
    assert bodies(channel.exchange(b"", [sent])) == [
        b"".join(values.tobytes() for values in columns.values())
    ]


def test_errors_cross_with_their_class_and_fields(channel):
    with pytest.raises(Refused) as refused:
        channel.action("refuse", b"")
    assert (refused.value.rule, refused.value.fix) == ("purpose", "ask for another")


def test_an_unexpected_error_tells_the_peer_nothing(channel, caplog):
    with pytest.raises(TrustcomputeError) as crashed:
        channel.action("crash", b"")
    assert "secret" not in str(crashed.value)
    assert "ZeroDivisionError" in caplog.text


def test_a_body_is_refused_by_its_header_and_the_reason_arrives(echo, channel):
    echo.limit = 10
    with pytest.raises(RemoteProtocolError, match="too large a body"):
        bodies(channel.exchange(b"", [frame(np.zeros(20 * wire.BATCH, np.uint8))]))
    assert channel.action("reverse", b"ok") == b"ko"


def test_an_unreachable_node_is_a_transport_error():
    channel = FlightChannel("grpc+tls://127.0.0.1:1", CLIENT, peer="node.example", action_seconds=3)
    with pytest.raises(TransportError, match="not running, not reachable"):
        channel.action("reverse", b"")
    with pytest.raises(TransportError, match=r"grpc\+tls"):
        FlightChannel("http://127.0.0.1:1", CLIENT, peer="node.example")


def test_the_wrong_name_and_foreign_certificates_are_refused(echo):
    foreign = CertificateAuthority.create("other").issue("client.example")
    for identity, peer in [(CLIENT, "other.example"), (foreign, "node.example")]:
        channel = FlightChannel(echo.server.url, identity, peer=peer, action_seconds=3)
        with pytest.raises(TransportError, match="certificate"):
            channel.action("reverse", b"")
        channel.close()
    assert echo.peers == []


def test_a_client_without_a_certificate_is_refused(echo):
    client = flight.FlightClient(
        echo.server.url, tls_root_certs=NODE.authority, override_hostname="node.example"
    )
    with pytest.raises(flight.FlightError):
        list(client.do_action(flight.Action("reverse", b""), flight.FlightCallOptions(timeout=3)))
    assert echo.peers == []


def test_a_stalled_answer_meets_its_deadline(echo):
    channel = FlightChannel(echo.server.url, CLIENT, peer="node.example", turn_seconds=0.5)
    with pytest.raises(TransportError, match="in time"):
        bodies(channel.exchange(b"stall", []))
    channel.close()


@pytest.fixture
def raw(echo):
    client = flight.FlightClient(
        echo.server.url,
        tls_root_certs=NODE.authority,
        cert_chain=CLIENT.certificate,
        private_key=CLIENT.key.to_pem(),
        override_hostname="node.example",
    )

    def exchange(schema, batches, command=b""):
        options = flight.FlightCallOptions(timeout=5)
        writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(command), options)
        writer.begin(schema)
        for batch, metadata in batches:
            if metadata is None:
                writer.write_batch(batch)
            else:
                writer.write_with_metadata(batch, metadata)
        writer.done_writing()
        return list(reader)

    yield exchange
    client.close()


def batch(size):
    return pa.record_batch([pa.array(np.zeros(size, np.uint8))], schema=wire.SCHEMA)


def test_streams_that_are_not_frames_are_refused(echo, raw, channel):
    header = frame(np.zeros(10, np.uint8)).header
    other = pa.schema([("x", pa.int64())])
    spoiled = [
        (other, [(pa.record_batch([[1]], schema=other), header)]),
        (wire.SCHEMA, [(batch(10), None)]),
        (wire.SCHEMA, [(batch(10), b"x" * 5000)]),
        (wire.SCHEMA, [(batch(9), header)]),
        (wire.SCHEMA, [(batch(11), header)]),
        (wire.SCHEMA, [(batch(5), header), (batch(0), None), (batch(5), None)]),
        (wire.SCHEMA, [(batch(5), header), (batch(5), header)]),
        (wire.SCHEMA, [(pa.record_batch([pa.array([None] * 10, pa.uint8())], schema=wire.SCHEMA), header)]),
        (wire.SCHEMA, [(batch(10), b"not json")]),
    ]
    for schema, batches in spoiled:
        with pytest.raises(flight.FlightError) as caught:
            raw(schema, batches)
        assert b"protocol.remote" in bytes(caught.value.extra_info), batches
    with pytest.raises(flight.FlightError):
        raw(wire.SCHEMA, [], command=b"d" * (wire.MAX_ACTION + 1))
    assert channel.action("reverse", b"ok") == b"ko"


def test_what_a_node_does_not_offer_is_refused_without_a_traceback(echo):
    client = flight.FlightClient(
        echo.server.url,
        tls_root_certs=NODE.authority,
        cert_chain=CLIENT.certificate,
        private_key=CLIENT.key.to_pem(),
        override_hostname="node.example",
    )
    options, descriptor = flight.FlightCallOptions(timeout=5), flight.FlightDescriptor.for_path("x")
    calls = [
        lambda: list(client.list_flights(options=options)),
        partial(client.list_actions, options),
        partial(client.get_flight_info, descriptor, options),
        lambda: client.do_get(flight.Ticket(b"x"), options).read_all(),
        lambda: client.do_put(descriptor, wire.SCHEMA, options)[0].close(),  # noqa: PLW0108
    ]
    for call in calls:
        with pytest.raises(flight.FlightError) as refused:
            call()
        assert "actions and exchanges only" in str(refused.value)
        assert "Traceback" not in str(refused.value)
    client.close()


def test_an_error_of_the_store_is_told_as_passing_and_without_its_path(echo, channel):
    from trustcompute.errors import StoreError

    def broken(peer, name, body):
        raise StoreError("cannot write /secret/place/book.sqlite: disk full")

    echo.action = broken
    with pytest.raises(TransportError, match="try again later") as told:
        channel.action("reverse", b"")
    assert "secret" not in str(told.value)


def test_calls_beyond_the_limits_are_turned_away(echo, channel):
    calls = echo.server._server._calls
    for peer, count in (("client.example", 16), ("another.example", 64)):
        calls[peer] += count
        with pytest.raises(TransportError, match="as many calls"):
            channel.action("reverse", b"")
        calls[peer] -= count
        assert channel.action("reverse", b"ok") == b"ko"


def test_many_calls_at_once(channel):
    done = []

    def call(number):
        values = np.full(100_000, number, np.uint8)
        done.append(bodies(channel.exchange(b"", [frame(values)])) == [values.tobytes()])

    threads = [threading.Thread(target=call, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [True] * 12


class BreaksInsideABody:
    """A stream that ends with an error after the first piece of a body of two."""

    schema = wire.SCHEMA

    def __init__(self, sent):
        whole = pa.array(np.zeros(10, np.uint8))
        batch = pa.record_batch([whole], schema=wire.SCHEMA)
        self.chunks = [type("Chunk", (), {"app_metadata": pa.py_buffer(sent.header), "data": batch})]

    def read_chunk(self):
        if not self.chunks:
            raise flight.FlightUnavailableError("connection reset")
        return self.chunks.pop()


def test_a_line_that_breaks_inside_a_body_is_told_as_any_other(channel):
    incoming = channel._incoming(BreaksInsideABody(frame(np.zeros(20, np.uint8))))
    with pytest.raises(TransportError, match="cannot talk to"):
        bodies(incoming)
