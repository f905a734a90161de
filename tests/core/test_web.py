"""One way to open a port of this machine, and whom it answers."""

from __future__ import annotations

import http.client

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
    [("127.0.0.1:{port}", 200), ("localhost:{port}", 200), ("example.org:{port}", 403), ("127.0.0.1", 403)],
)
def test_only_names_of_this_machine_are_answered(host, status):
    with served_app(application) as port:
        connection = http.client.HTTPConnection(HOST, port, timeout=10)
        connection.request("GET", "/", headers={"Host": host.format(port=port)})
        assert connection.getresponse().status == status
        connection.close()


@pytest.mark.parametrize("port", [-1, 65_536, True, "8000", None])
def test_what_is_no_port_is_a_sentence(port):
    with pytest.raises(ConfigError, match=f"port={port} must be a whole number from 0 to 65535"):
        checked_port(port)
