"""A stand-in for the hub on this machine: as much of its HTTP interface as the real client needs to push and load."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_writer"
READER = "hf_reader"


class Hub(ThreadingHTTPServer):
    """Repositories in memory.

    Attributes:
        repos: The files of every repository.
        private: Whether it is private.
        gated: Repositories whose licence the reader has not accepted; their files are refused.
        asked: Method and path of every request.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.gated: set[str] = set()
        self.objects: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, name: str) -> str:
        content = sorted((path, hashlib.sha1(data).hexdigest()) for path, data in self.repos[name].items())
        return hashlib.sha1(json.dumps(content).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_):
        """Quiet."""

    def answer(self, status: int, value: object = None, headers: dict[str, str] | None = None, data: bytes = b""):
        body = data if value is None else json.dumps(value).encode()
        self.send_response(status)
        for name, each in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, each)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refused(self) -> bool:
        """Whether the token is missing, or may not write."""
        said = self.headers.get("Authorization", "")
        if said == f"Bearer {TOKEN}":
            return False
        status = 403 if said == f"Bearer {READER}" else 401
        self.answer(status, {"error": {401: "Invalid username or password.", 403: "You don't have the rights"}[status]})
        return True

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(("POST", self.path))
        if self.path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif not self.refused():
            self.write(body)

    def write(self, body: bytes):
        hub = self.server
        if self.path == "/api/repos/create":
            said = json.loads(body)
            name = f"{said.get('organization') or 'me'}/{said['name']}"
            made = name not in hub.repos
            if made:
                hub.repos[name], hub.private[name] = {}, said.get("private") or said.get("visibility") == "private"
            self.answer(200 if made else 409, {"url": f"{hub.url}/{name}"})
        elif found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/preupload/main", self.path):
            modes = {True: "lfs", False: "regular"}
            paths = [each["path"] for each in json.loads(body)["files"]]
            files = [
                {"path": path, "uploadMode": modes[path.endswith(".safetensors")], "shouldIgnore": False}
                for path in paths
            ]
            self.answer(200, {"files": files}) if found[1] in hub.repos else self.answer(404, {"error": "not found"})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**each, "actions": {"upload": {"href": f"{hub.url}/lfs/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            self.answer(200, {"transfer": "basic", "objects": objects})
        elif found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/commit/main", self.path):
            for line in body.decode().splitlines():
                self.put(found[1], **json.loads(line))
            oid = hub.commit(found[1])
            self.answer(200, {"commitUrl": f"{hub.url}/{found[1]}/commit/{oid}", "commitOid": oid})
        else:
            self.answer(404, {"error": f"no {self.path} here"})

    def put(self, name: str, key: str, value: dict):
        if key == "file":
            self.server.repos[name][value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            self.server.repos[name][value["path"]] = self.server.objects[value["oid"]]

    def do_PUT(self):
        self.server.asked.append(("PUT", self.path))
        data = self.rfile.read(int(self.headers["Content-Length"]))
        assert hashlib.sha256(data).hexdigest() == self.path.rpartition("/")[2]
        self.server.objects[hashlib.sha256(data).hexdigest()] = data
        self.answer(200)

    def do_GET(self):
        hub = self.server
        hub.asked.append((self.command, self.path))
        if found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(/revision/[\w.-]+|/tree/.*)?(\?.*)?", self.path):
            if found[1] not in hub.repos:
                return self.answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            files = hub.repos[found[1]]
            if (found[2] or "").startswith("/tree"):
                tree = [{"type": "file", "path": path, "size": len(data), "oid": "0"} for path, data in files.items()]
                return self.answer(200, tree)
            listed = [{"rfilename": path} for path in files]
            return self.answer(200, {"id": found[1], "sha": hub.commit(found[1]), "siblings": listed})
        found = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/[\w.-]+/(.+)", self.path)
        if found and found[1] in hub.gated:
            return self.answer(403, {"error": "Access is restricted"}, {"X-Error-Code": "GatedRepo"})
        data = hub.repos.get(found[1], {}).get(found[2]) if found else None
        if data is None:
            return self.answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        head = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": hub.commit(found[1])}
        return self.answer(200, headers=head, data=data)

    do_HEAD = do_GET


def take_for_the_hub(hub: Hub, monkeypatch, cache) -> None:
    """Direct the real client to a stand-in, with a cache of its own and the token of a writer."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that serves while the block runs."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
