"""W&B never asks and never fails."""

from __future__ import annotations

import pytest

from epochal.training.loggers.wandb import wandb_mode

NOWHERE = {"NETRC": "/nowhere", "WANDB_BASE_URL": "http://127.0.0.1:9"}  # a port that nobody answers


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": "x" * 40}, "offline"),
        ({"WANDB_API_KEY": "x" * 40, "HTTPS_PROXY": "http://127.0.0.1:9"}, "online"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
        ({"WANDB_MODE": "online"}, "online"),
    ],
)
def test_the_mode_follows_key_and_network(environment, mode):
    assert wandb_mode({**NOWHERE, **environment}) == mode


def test_a_key_in_netrc_counts_if_the_server_answers(tmp_path):
    import socket

    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1\n  login user\n  password 0123456789\n")
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert wandb_mode({"NETRC": str(netrc), "WANDB_BASE_URL": url}) == "online"
        assert wandb_mode({"NETRC": str(tmp_path / "none"), "WANDB_BASE_URL": url}) == "offline"
