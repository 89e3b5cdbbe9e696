"""Positive control of the egress guard in conftest: it does stop what it is there to stop."""

from __future__ import annotations

import socket

import pytest


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "example.invalid"])
def test_connecting_out_is_refused(host):
    with pytest.raises(PermissionError, match=host):
        socket.create_connection((host, 9), timeout=1)


def test_a_bare_connect_is_refused():
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        pytest.raises(PermissionError, match=r"192\.0\.2\.1"),
    ):
        tcp.connect(("192.0.2.1", 9))


def test_sending_out_is_refused():
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        pytest.raises(PermissionError, match=r"192\.0\.2\.1"),
    ):
        udp.sendto(b"x", ("192.0.2.1", 9))


def test_loopback_is_open():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=5) as client,
    ):
        assert client.getpeername() == server.getsockname()
