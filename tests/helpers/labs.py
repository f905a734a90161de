"""The lab as it is served, for the tests of its rooms."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epochal.inference.lab.networks import Networks
from epochal.inference.lab.runs import Runs, run_id
from epochal.inference.lab.server import TOKEN, Lab, application
from epochal.inference.load import open_run
from epochal.inference.notebook import LoadedRun
from helpers.web import served_app


@dataclass
class Client:
    """Asks a lab as its page does."""

    lab: Lab
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/?token={self.lab.token}"

    def ask(
        self, method: str, path: str, data: Any = None, *, token: bool = True, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, answer (JSON if it is, else bytes) and headers; keyword arguments are further headers, `_` for `-`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent[TOKEN] = self.lab.token
        body = data if isinstance(data, bytes | None) else json.dumps(data).encode()
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        found = dict(response.getheaders())
        return (
            response.status,
            json.loads(content)
            if "json" in found.get("Content-Type", "") and "jsonl" not in found.get("Content-Type", "")
            else content,
            found,
        )

    def get(self, path: str) -> Any:
        status, data, _ = self.ask("GET", path, token=False)
        assert status == 200, data
        return data

    def post(self, path: str, data: Any = None) -> Any:
        status, found, _ = self.ask("POST", path, {} if data is None else data)
        assert status == 200, found
        return found

    def refused(self, path: str, data: Any = None) -> str:
        """The sentence with which a POST is refused."""
        status, found, _ = self.ask("POST", path, {} if data is None else data)
        assert status == 400, (status, found)
        return str(found["error"])


@contextmanager
def served_lab(outputs: Path, **options: Any) -> Iterator[Client]:
    """The lab of an outputs folder; options are those of `Networks`."""
    runs = Runs(outputs)
    lab = Lab(runs, Networks(runs.folder, lambda folder: LoadedRun(open_run(folder)), **options))
    with served_app(lambda: application(lab)) as port:
        yield Client(lab, port)


def id_of(folder: Path) -> str:
    return run_id(folder)
