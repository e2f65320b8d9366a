"""As much of W&B's server as its client needs to begin a run, to go on with it, and to upload its history."""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Server:
    """The runs, by id, that clients have uploaded, and what they asked for."""

    def __init__(self) -> None:
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.summary: dict[str, dict[str, Any]] = {}
        self.given: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.address = ""

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        """Answer one query of GraphQL."""
        self.asked.append(operation)
        if operation == "RunResumeStatus":
            project = self._project(given) | {"bucket": self._bucket(given["name"])}
            return {"model": project if given["name"] in self.history else None}
        if operation == "UpsertBucket":
            self.history.setdefault(given["name"], [])
            self.given[given["name"]] = given
            return {"upsertBucket": {"bucket": self._bucket(given["name"]) | {"project": self._project(given)}}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.address}/put"} for name in given["files"]]
            return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
        if operation == "Viewer":
            return {"viewer": {"id": "U", "entity": "someone", "username": "someone", "flags": "{}"}}
        return {}

    def stream(self, name: str, files: dict[str, Any]) -> None:
        """Take lines of a run's files, each from an offset on."""
        part = files.get("wandb-history.jsonl", {"offset": 0, "content": []})
        lines = [json.loads(line) for line in part["content"]]
        self.history[name][part["offset"] : part["offset"] + len(lines)] = lines
        if summary := files.get("wandb-summary.json"):
            self.summary[name] = json.loads(summary["content"][-1])

    def _project(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"id": "P", "name": given["project"], "entity": {"id": "E", "name": "someone"}}

    def _bucket(self, name: str) -> dict[str, Any]:
        lines = self.history.get(name, [])
        return {
            "id": f"id-{name}", "name": name, "displayName": name, "description": "", "sweepName": None, "tags": [],
            "notes": "", "config": "{}", "summaryMetrics": json.dumps(self.summary.get(name, {})),
            "historyLineCount": len(lines), "eventsLineCount": 0, "logLineCount": 0, "eventsTail": "[]",
            "historyTail": json.dumps([json.dumps(line) for line in lines[-1:]]), "wandbConfig": '{"t": 1}',
        }  # fmt: skip


@contextmanager
def wandb_server() -> Iterator[Server]:
    """Serve at an address of this machine."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                content = gzip.decompress(content)
            answer: dict[str, Any] = {}
            if self.path == "/graphql":
                query = json.loads(content)
                answer = {"data": server.answer(query["operationName"], query.get("variables") or {})}
            elif self.path.endswith("/file_stream"):
                server.stream(self.path.split("/")[-2], json.loads(content).get("files") or {})
            self._send(answer)

        def do_GET(self) -> None:
            self._send({})

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._send({})

        def _send(self, answer: dict[str, Any]) -> None:
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        server.address = f"http://127.0.0.1:{served.server_port}"
        Thread(target=served.serve_forever, daemon=True).start()
        yield server
        served.shutdown()
