"""As much of W&B's server as its client (0.31) needs to write the history of runs, and no more."""

import contextlib
import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ENTITY = {"id": "entity", "name": "me"}
KEY = "a" * 40  # of the form that the client takes for one
NONE_YET = {"summaryMetrics": "{}", "logLineCount": 0, "eventsLineCount": 0, "eventsTail": "[]",
            "config": "{}", "tags": [], "wandbConfig": '{"t": {}}'}  # fmt: skip


@contextlib.contextmanager
def served():
    """Its address, and {run id: {offset: row}} of what it was sent."""
    runs = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            asked = json.loads(body)
            if self.path.endswith("file_stream"):
                said = _written(runs, self.path.split("/")[-2], asked)
            else:
                said = _answered(runs, asked["operationName"], asked.get("variables") or {})
            content = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", runs
    finally:
        server.shutdown()
        server.server_close()


def _written(runs, name, asked):
    rows = (asked.get("files") or {}).get("wandb-history.jsonl")
    for i, line in enumerate(rows["content"] if rows else ()):
        runs.setdefault(name, {})[rows["offset"] + i] = json.loads(line)
    return {"limits": {}}


def _answered(runs, operation, variables):
    name, project = variables.get("name"), variables.get("project")
    if operation == "RunResumeStatus":
        history = runs.get(name)
        tail = [json.dumps(history[max(history)])] if history else []
        bucket = None if history is None else NONE_YET | {
            "id": "run", "name": name, "displayName": name, "historyTail": json.dumps(tail),
            "historyLineCount": 1 + max(history, default=-1),
        }  # fmt: skip
        return {"data": {"model": {"id": "model", "name": project, "entity": ENTITY,
                                   "bucket": bucket}}}  # fmt: skip
    if operation == "UpsertBucket":
        new = name not in runs
        runs.setdefault(name, {})
        bucket = {"id": "run", "name": name, "displayName": name, "config": "{}",
                  "project": {"id": "project", "name": project, "entity": ENTITY}}  # fmt: skip
        return {"data": {"upsertBucket": {"inserted": new, "bucket": bucket}}}
    if operation == "Viewer":
        return {"data": {"viewer": {"id": "me", "entity": "me", "username": "me", "flags": "{}",
                                    "teams": {"edges": []}}}}  # fmt: skip
    return {"data": None, "errors": [{"message": f"{operation} is not served here"}]}
