"""What is measured: checks before anything counts, load of each row, memory, many clients, reload and replacement under load."""

import http.client
import json
import os
import signal
import statistics
import subprocess
import threading
import time

from peers import SIZES, SMALL
from processes import Failed, busy, cpu, listeners, memory, tree

# name: what the table calls it, connections, arguments of the load generator
def small(connections):
    return ("GET, 100 B", connections, ["--path", "/", "--expect", str(SMALL)])


ROWS = {
    "get": small(64),
    "unix": ("GET, 100 B, backends at Unix sockets", 64, ["--path", "/unix", "--expect", str(SMALL)]),
    "get8": small(8),
    "get256": small(256),
    "get512": small(512),
    "get1024": small(1024),
    "get10k": ("GET, 10 kB", 64, ["--path", "/10k", "--expect", str(SIZES["/10k"])]),
    "get1m": ("GET, 1 MB", 16, ["--path", "/1m", "--expect", str(SIZES["/1m"])]),
    "post": ("POST, 4 kB", 64, ["--path", "/", "--body", "4096", "--expect", str(SMALL)]),
    "close": ("GET, 100 B, a new connection each", 64, ["--path", "/", "--expect", str(SMALL), "--close", "--spread", "16"]),
    "hit": ("GET, 100 B, from the cache", 64, ["--path", "/hit", "--expect", str(SMALL)]),
    "hit10k": ("GET, 10 kB, from the cache", 64, ["--path", "/hit10k", "--expect", str(SIZES["/hit10k"])]),
    "ws": ("WebSocket echo, 100 B", 64, ["--path", "/ws", "--websocket", "100"]),
}


# Rows of some peers only: the others are not configured for them.
ONLY = {row: ["nginx", "nginx-bare", "muster"] for row in ("unix", "hit", "hit10k")}


def takes_part(name, row):
    return name in ONLY.get(row, [name])


class Load:
    """A load generator that has opened its connections; each has made one request."""

    def __init__(self, binary, port, connections, arguments, patience=75):
        self.process = subprocess.Popen([str(binary), "--port", str(port), "--connections", str(connections), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.timer = threading.Timer(patience, self.process.kill)
        self.timer.daemon = True
        self.timer.start()
        if self.process.stdout.readline() != "ready\n":
            why = self.process.stderr.read().strip() or "the load generator gave up"
            self.leave()
            raise Failed(why)

    def go(self, seconds):
        self.timer.cancel()
        self.timer = threading.Timer(seconds + 30, self.process.kill)
        self.timer.daemon = True
        self.timer.start()
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def result(self):
        line = self.process.stdout.readline()
        self.leave()
        if not line:
            raise Failed("the load generator gave up: " + self.process.stderr.read().strip())
        return json.loads(line)

    def leave(self):
        self.timer.cancel()
        try:
            self.process.stdin.close()
        except OSError:
            pass
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def run(load, peer, backend, connections, arguments, seconds, rate=0, settle=0.0):
    """One measurement. CPU is the peer's, microseconds a request; `others` the share of all processors that went to strangers."""
    extra = ["--seconds", str(seconds), *(["--rate", f"{rate:.3f}"] if rate else [])]
    generator = Load(load, peer.port, connections, [*arguments, *extra])
    time.sleep(settle)
    pids, backends = peer.pids(), backend.pids()
    total, began = busy()
    before, behind = cpu(pids), cpu(backends)
    generator.go(seconds)
    line = generator.process.stdout.readline()
    used = cpu(pids) - before
    theirs = cpu(backends) - behind
    worked, ended = busy()
    generator.leave()
    if not line or not pids:
        raise Failed(f"{peer.name} or the load generator ended during the run")
    result = json.loads(line)
    if result["failed"]:
        kinds = ", ".join(f"{n} {kind}" for kind, n in result["errors"].items() if n)
        raise Failed(f"{result['failed']} of {result['requests'] + result['failed']} requests failed ({kinds}; status {result['last_status']})")
    if not result["requests"] or not used:
        raise Failed("nothing was measured")
    own = used + theirs + result["cpu"] * 1000
    result["cpu_us"] = used / result["requests"] / 1000
    result["backend_us"] = theirs / result["requests"] / 1000
    result["others"] = max(0.0, (worked - total - own) / ((ended - began) * os.cpu_count()))
    return result


def check(load, peer, row, backend):
    """One right answer of the row, before it is measured: status, length, content."""
    _, _, arguments = ROWS[row]
    if row == "ws":
        generator = Load(load, peer.port, 2, [*arguments, "--seconds", "0.05", "--rate", "200"], patience=10)
        generator.go(1)
        result = generator.result()
        if result["failed"] or not result["requests"]:
            raise Failed(f"echo: {result['errors']}")
        return
    path = arguments[1]
    expected = SIZES.get(path, SMALL)
    connection = http.client.HTTPConnection("127.0.0.1", peer.port, timeout=10)
    try:
        body, headers = (b"x" * 4096, {"Content-Type": "text/plain"}) if row == "post" else (None, {})
        if row == "close":
            headers = {"Connection": "close"}
        connection.request("POST" if body else "GET", path, body=body, headers=headers)
        answer = connection.getresponse()
        data = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Failed(f"{row}: {error!r}") from error
    finally:
        connection.close()
    if answer.status != 200 or data != b"0123456789" * (expected // 10):
        raise Failed(f"{row}: status {answer.status}, {len(data)} bytes instead of {expected}")


def features(peer):
    """What the backend sees: whether its connections are kept, and the fields a gateway adds."""
    connection = http.client.HTTPConnection("127.0.0.1", peer.port, timeout=10)
    kept, seen = 0, ["", "", ""]
    for _ in range(16):
        connection.request("GET", "/seen", headers={"Host": "bench.local"})
        seen = connection.getresponse().read().decode().split("|")
        kept = max(kept, int(seen[0]))
    connection.close()
    if kept < 3:
        raise Failed("does not keep its connections to the backend")
    return {"kept": kept, "forwarded_for": seen[1] != "", "request_id": seen[2] != ""}


def idle(load, peer, count, settle):
    """Growth of memory a connection, bytes, with idle connections that have each made one request."""
    arguments = ["--path", "/", "--expect", str(SMALL), "--spread", "4"]
    warm = Load(load, peer.port, 16, [*arguments, "--seconds", "0.1"])
    warm.go(1)
    warm.result()
    time.sleep(settle)
    before = memory(peer.pids())
    generator = Load(load, peer.port, count, arguments)
    time.sleep(settle)
    after = memory(peer.pids())
    generator.leave()
    return {"rss": (after[0] - before[0]) / count, "pss": (after[1] - before[1]) / count, "base_rss": before[0], "all_rss": after[0]}


def clients(load, peer, backend, count, rate, seconds, settle):
    arguments = ["--path", "/", "--expect", str(SMALL), "--spread", "4"]
    result = run(load, peer, backend, count, arguments, seconds, rate, settle)
    result["rss"], result["pss"] = memory(peer.pids())
    return result


def under_signals(load, peer, number, times, every, replace):
    """Load over kept and over new connections while the program is told to reload (or to give way to a new process) again and again."""
    seconds = (times + 1) * every
    arguments = ["--path", "/", "--expect", str(SMALL), "--seconds", str(seconds)]
    pairs = []
    try:
        pairs.append(("kept", Load(load, peer.port, 64, [*arguments, "--rate", "2000"])))
        pairs.append(("new", Load(load, peer.port, 32, [*arguments, "--rate", "500", "--close", "--spread", "16"])))
        for _, generator in pairs:
            generator.go(seconds)
        carried_out, why = signals(peer, number, times, every, replace)
        if why and not listeners(peer.port):
            for _, generator in pairs:
                generator.process.kill()
            raise Failed(why)
        results = {kind: generator.result() for kind, generator in pairs}
    finally:
        for _, generator in pairs:
            generator.leave()
    old = 0
    if replace:  # the old ones end by themselves once their clients are gone
        until = time.monotonic() + 5
        while (old := len([pid for pid in peer.seen if alive(pid)]) - 1) > 0 and time.monotonic() < until:
            time.sleep(0.05)
    return {"sent": times, "carried_out": carried_out, "why": why, "left_over": max(old, 0), **results}


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(true, patience=5.0):
    until = time.monotonic() + patience
    while not (found := true()) and time.monotonic() < until:
        time.sleep(0.02)
    return found


def signals(peer, number, times, every, replace):
    """How many took effect, and what went wrong. A replacement is a new process on the listening socket; a reload is a new worker, of
    a program with workers, or having survived."""
    carried_out, target = 0, peer.process.pid
    peer.seen.add(target)
    for _ in range(times):
        time.sleep(every)
        workers = set(tree(target))
        if not alive(target):
            return carried_out, "it is gone"
        os.kill(target, number)
        if replace:
            new = wait_until(lambda: [pid for pid in listeners(peer.port) if pid not in peer.seen] or (not listeners(peer.port) and [0]))
            if new == [0]:
                return carried_out, f"{signal.Signals(number).name} ended it"
            if new:
                carried_out += 1
                peer.seen.update(new)
                target = new[-1]
        elif len(workers) == 1 or wait_until(lambda: set(tree(target)) - workers):
            carried_out += alive(target)
    time.sleep(every)
    return carried_out, None if carried_out == times else f"{times - carried_out} had no effect"


def median(values):
    return statistics.median(values) if values else None
