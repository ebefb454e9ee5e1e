"""A stand-in for Google Cloud Storage: its JSON API over HTTP, in memory, as one bucket.

As much of it as gcsfs (behind epath), google-cloud-storage and TensorStore (behind Orbax) call:
whole objects, flat names, no rename, no append, `ifGenerationMatch`. What it stores is what the
real one would: https://cloud.google.com/storage/docs/json_api/v1. Faults can be put into it.
"""

import base64
import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c  # gcsfs needs it

BUCKET = "bucket"


class GoogleStorage:
    """The server; `objects` maps names to (content, generation)."""

    def __init__(self):
        self.objects = {}
        self.requests = []  # (method, path) of all that came
        self.uploads = {}
        self.faults = []  # [left, method, part of the path, status]
        self.lock = threading.Lock()
        self._generation = 1000
        self._server = _Server(("127.0.0.1", 0), type("_", (_Handler,), {"gcs": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    @property
    def environment(self):
        """What a process needs to take this for the real one."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "GOOGLE_CLOUD_PROJECT": "stand-in",
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
            "NO_GCE_CHECK": "true",
            "FSSPEC_GCS_TOKEN": "anon",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks a second API over gRPC
        }

    def fail(self, status, times, method="", part=""):
        """The next `times` requests of `method` whose path holds `part` are answered `status`."""
        self.faults.append([times, method, part, status])

    def fault(self, method, path):
        with self.lock:
            for fault in self.faults:
                if fault[0] > 0 and fault[1] in ("", method) and fault[2] in path:
                    fault[0] -= 1
                    return fault[3]
        return None

    def put(self, name, content, query):
        """The new object's description, or None where the precondition does not hold."""
        with self.lock:
            if "ifGenerationMatch" in query:
                now = self.objects[name][1] if name in self.objects else 0
                if int(query["ifGenerationMatch"]) != now:
                    return None
            self._generation += 1
            self.objects[name] = (bytes(content), self._generation)
            return self.describe(name)

    def describe(self, name):
        content, generation = self.objects[name]
        return {
            "kind": "storage#object",
            "bucket": BUCKET,
            "name": name,
            "size": str(len(content)),
            "generation": str(generation),
            "metageneration": "1",
            "md5Hash": _md5(content),
            "crc32c": base64.b64encode(google_crc32c.Checksum(content).digest()).decode(),
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "updated": "2026-01-01T00:00:00.000Z",
        }

    def listing(self, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        items, prefixes = [], set()
        with self.lock:
            for name in sorted(self.objects):
                if not name.startswith(prefix):
                    continue
                head, found, _ = name[len(prefix) :].partition(delimiter or "\0")
                if found:
                    prefixes.add(prefix + head + delimiter)
                else:
                    items.append(self.describe(name))
        answer = {"kind": "storage#objects"}
        return (
            answer
            | ({"items": items} if items else {})
            | ({"prefixes": sorted(prefixes)} if prefixes else {})
        )


def _md5(content):
    return base64.b64encode(hashlib.md5(content).digest()).decode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """A client that was killed has closed its connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    gcs: GoogleStorage

    def log_message(self, *_):
        pass

    def _handle(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        split = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(split.query).items()}
        self.gcs.requests.append((self.command, unquote(self.path)))
        if status := self.gcs.fault(self.command, unquote(self.path)):
            self._json({"error": {"code": status, "message": "injected"}}, status)
            return
        path = split.path.removeprefix("/download").removeprefix("/resumable")
        upload = path.startswith("/upload/")
        path = path.removeprefix("/upload").removeprefix(f"/storage/v1/b/{BUCKET}")
        if path in ("", "/"):
            self._json({"kind": "storage#bucket", "name": BUCKET, "location": "US"})
        elif upload:
            self._upload(query, body)
        elif path == "/o":
            self._json(self.gcs.listing(query))
        elif path.startswith("/o/"):
            self._object(path.removeprefix("/o/"), query)
        else:
            self._json({"error": {"code": 404, "message": f"no {path}"}}, 404)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _handle

    def _upload(self, query, body):
        kind = query.get("uploadType")
        if "upload_id" in query:
            self._part(query["upload_id"], body)
            return
        if kind == "resumable":
            name = query.get("name") or json.loads(body)["name"]
            number = str(len(self.gcs.uploads))
            self.gcs.uploads[number] = (name, query, bytearray())
            where = f"{self.gcs.url}/upload/storage/v1/b/{BUCKET}/o?upload_id={number}"
            self._answer(200, b"", {"Location": where})
            return
        name = query.get("name")
        if kind == "multipart":
            boundary = self.headers["Content-Type"].split("boundary=")[1].strip('"').encode()
            _, first, second, _ = body.replace(b"\r\n", b"\n", 6).split(b"--" + boundary, 3)
            name = json.loads(first.split(b"\n\n", 1)[1])["name"]
            body = second.split(b"\n\n", 1)[1].removesuffix(b"\n").removesuffix(b"\r")
        self._stored(self.gcs.put(name, body, query))

    def _part(self, number, body):
        name, query, so_far = self.gcs.uploads[number]
        so_far += body
        if self.headers["Content-Range"].endswith("/*"):
            self._answer(308, b"", {"Range": f"bytes=0-{len(so_far) - 1}"})
            return
        self._stored(self.gcs.put(name, so_far, query))

    def _stored(self, description):
        if description is None:
            self._json({"error": {"code": 412, "message": "precondition failed"}}, 412)
        else:
            self._json(description)

    def _object(self, rest, query):
        name, _, command = rest.partition("/")
        name = unquote(name)
        found = self.gcs.objects.get(name)
        if found is None:
            self._json({"error": {"code": 404, "message": f"No such object: {name}"}}, 404)
        elif self.command == "DELETE":
            with self.gcs.lock:
                self.gcs.objects.pop(name, None)
            self._answer(204, b"")
        elif command:  # copyTo, rewriteTo, moveTo /b/<bucket>/o/<name>
            target = unquote(command.split("/o/", 1)[1])
            stored = self.gcs.put(target, found[0], {})
            if command.startswith("moveTo"):
                self.gcs.objects.pop(name, None)
            self._json({"done": True, "resource": stored} if "rewrite" in command else stored)
        elif query.get("alt") == "media":
            self._content(*found)
        else:
            self._json(self.gcs.describe(name))

    def _content(self, content, generation):
        headers = {
            "x-goog-generation": str(generation),
            "X-Goog-Hash": f"md5={_md5(content)}",
            "Content-Type": "application/octet-stream",
        }
        asked = self.headers.get("Range")
        if not asked:
            self._answer(200, content, headers)
            return
        first, last = asked.removeprefix("bytes=").split("-")
        begin = int(first) if first else len(content) - int(last)
        end = min(int(last) + 1 if first and last else len(content), len(content))
        if begin >= len(content):
            self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
        self._answer(206, content[begin:end], headers)

    def _json(self, value, status=200):
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status, body, headers=None):
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
