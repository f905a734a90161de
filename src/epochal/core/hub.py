"""Whether the Hugging Face Hub can be reached, from which data sets and the weights of timm's models are downloaded."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from urllib.parse import urlparse


def hub_is_reachable(environment: Mapping[str, str] = os.environ) -> bool:
    """Tries one connection with a timeout of 3 seconds; the Hub's own client would retry for 23 before it fails.

    Args:
        environment: Environment variables; HF_HUB_OFFLINE, HF_ENDPOINT and those of proxies are respected.
    """
    if environment.get("HF_HUB_OFFLINE", "0").lower() not in ("0", "", "false"):
        return False
    if any(environment.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # unknown: only the proxy connects to the Hub
    url = urlparse(environment.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        socket.create_connection(
            (url.hostname or "", url.port or (80 if url.scheme == "http" else 443)), timeout=3
        ).close()
    except OSError:
        return False
    return True
