"""One way to open a port of this machine, and whom it answers."""

from __future__ import annotations

import http.client
import socket
import sys

import pytest
from aiohttp import web

from epochal.core.errors import ConfigError
from epochal.core.web import HOST, check_host, checked_port
from helpers.web import served_app


async def hello(request: web.Request) -> web.Response:
    check_host(request)
    return web.Response(text="hello")


def application() -> web.Application:
    app = web.Application()
    app.add_routes([web.get("/", hello)])
    return app


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:{port}", 200), ("localhost:{port}", 200), ("example.org:{port}", 403), ("127.0.0.1", 200)],
)
def test_only_names_of_this_machine_are_answered(host, status):
    with served_app(application) as port:
        connection = http.client.HTTPConnection(HOST, port, timeout=10)
        connection.request("GET", "/", headers={"Host": host.format(port=port)})
        assert connection.getresponse().status == status
        connection.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
def test_it_listens_on_this_machine_alone():
    with served_app(application) as port:
        socket.create_connection((HOST, port), timeout=10).close()
        with pytest.raises(ConnectionRefusedError):  # which a server of all addresses would answer
            socket.create_connection(("127.0.0.2", port), timeout=10)


@pytest.mark.parametrize("port", [-1, 65_536, True, "8000", None])
def test_what_is_no_port_is_a_sentence(port):
    with pytest.raises(ConfigError, match=f"port={port} must be a whole number from 0 to 65535"):
        checked_port(port)
