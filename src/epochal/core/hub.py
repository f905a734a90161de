"""Hugging Face's Hub, from which data sets come and timm's weights."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from urllib.parse import urlparse


def hub_is_reachable(environment: Mapping[str, str] = os.environ) -> bool:
    """One quick connection, because the Hub's own client retries for 23 seconds before it gives up."""
    if environment.get("HF_HUB_OFFLINE", "0").lower() not in ("0", "", "false"):
        return False
    if any(environment.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # only the proxy can tell
    url = urlparse(environment.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        socket.create_connection(
            (url.hostname or "", url.port or (80 if url.scheme == "http" else 443)), timeout=3
        ).close()
    except OSError:
        return False
    return True
