"""Notes in PostgreSQL: POST / adds the body as one, GET / lists the last ten. Speaks to the database by psql, which finds the primary."""
import http.server
import os
import subprocess


def sql(text, **values):
    words = ["psql", os.environ["DATABASE_URL"] + "&connect_timeout=2", "-qAtX", "-v", "ON_ERROR_STOP=1"]
    for name, value in values.items():
        words += ["-v", f"{name}={value}"]
    done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=10)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return done.stdout


class Notes(http.server.BaseHTTPRequestHandler):
    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        # A database that is away for a moment is no reason to take this replica out.
        if self.path in ("/live", "/ready"):
            return self.answer(200, "ok\n")
        self.attempt(lambda: sql("SELECT id || ' ' || body FROM note ORDER BY id DESC LIMIT 10;"))

    def do_POST(self):
        length = min(int(self.headers.get("content-length") or 0), 10_000)
        note = self.rfile.read(length).decode("utf-8", "replace").replace("\0", "")
        self.attempt(lambda: sql("INSERT INTO note (body) VALUES (:'note') RETURNING id;", note=note))

    def attempt(self, work):
        try:
            self.answer(200, work())
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            self.answer(503, f"{error}\n")

    def log_message(self, *_):
        pass


def main():
    # Both replicas may come here at the same time: the second one waits for the first.
    sql("SELECT pg_advisory_lock(1); CREATE TABLE IF NOT EXISTS note (id bigserial PRIMARY KEY, body text NOT NULL);")
    http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Notes).serve_forever()


main()
