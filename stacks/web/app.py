"""A small site: pages that may be kept for a minute, a list that may be served stale while it is made anew, and a page for each visitor
that may not be kept at all. Python's standard library only."""

import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WHO = os.environ.get("INSTANCE_ID", "0")


class Site(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/health":
            return self.answer("ok\n", "text/plain", "no-store")
        if path == "/me":
            return self.answer(f"replica {WHO}: a page for you alone\n", "text/plain", "private, no-store")
        if path == "/list":
            time.sleep(0.2)
            rows = [{"id": n, "name": f"thing {n}", "made_by": WHO} for n in range(200)]
            return self.answer(json.dumps(rows), "application/json", "max-age=5, stale-while-revalidate=60, stale-if-error=600", "list")
        return self.answer(f"<h1>{path}</h1><p>Made by replica {WHO} at {time.time():.0f}.</p>\n", "text/html", "max-age=60", "page")

    def answer(self, text, kind, control, tag=None):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", control)
        if tag:
            self.send_header("Cache-Tag", tag)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer((os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"])), Site).serve_forever()
