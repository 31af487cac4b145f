"""A server on the loopback interface that answers what a test tells it to: status, headers, body, pauses, cuts."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ScriptedServer:
    """Serves requests by a function; use as a context manager.

    Args:
        answer: Called with method, path and JSON body (or bytes); returns ``(status, headers, body)``, where a body
            that is no bytes becomes JSON. ``"cut"`` as status closes the connection in the middle.
    """

    def __init__(self, answer: Callable[[str, str, Any], tuple[Any, dict[str, str], Any]]):
        self.requests: list[tuple[str, str, Any, dict[str, str]]] = []
        self.at_once = self.most_at_once = 0
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def _serve(self):
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                try:
                    body = json.loads(data)
                except ValueError:
                    body = data
                with lock:
                    outer.requests.append((self.command, self.path, body, dict(self.headers)))
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                try:
                    status, headers, reply = answer(self.command, self.path, body)
                finally:
                    with lock:
                        outer.at_once -= 1
                if status == "cut":
                    self.connection.close()
                    self.close_connection = True
                    return
                if not isinstance(reply, bytes):
                    reply = json.dumps(reply).encode()
                self.send_response(status)
                for key, value in {
                    "Content-Type": "application/json",
                    "Content-Length": str(len(reply)),
                    **headers,
                }.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(reply)

            do_GET = do_POST = do_DELETE = do_PUT = _serve

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> ScriptedServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def sleeping(seconds: float, then: Any) -> Callable[..., Any]:
    def answer(*_: Any) -> Any:
        time.sleep(seconds)
        return then

    return answer
