"""Own processes: starting, their descendants, processor time, memory, and the end of them."""

import ctypes
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


class Failed(Exception):
    """What was asked for did not happen; the text is for people."""


def become_reaper():
    """Descendants whose parent ended become our children, so that none is lost (a replaced gateway's successor is one)."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise Failed("prctl: " + os.strerror(ctypes.get_errno()))


def parents():
    """The parent of every process."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            fields = stat[stat.rindex(")") + 2 :].split()
            if fields[0] != "Z":
                found[int(entry)] = int(fields[1])
    return found


def tree(root):
    """The process and its descendants that run."""
    table, found = parents(), []
    for pid in table:
        at = pid
        while at not in (root, 0, 1) and at in table:
            at = table[at]
        if at == root:
            found.append(pid)
    return found


def cpu(pids):
    """Nanoseconds on a processor, from the scheduler's own accounting, all threads."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(task.read_text().split()[0])
            except OSError:
                pass
    return total


def memory(pids):
    """(RSS, PSS) in bytes."""
    rss = pss = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                rss += int(line.split()[1]) * 1024
            elif line.startswith("Pss:"):
                pss += int(line.split()[1]) * 1024
    return rss, pss


def busy():
    """(nanoseconds all processors worked or were stolen, now in nanoseconds)."""
    fields = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK"), time.monotonic_ns()


def listeners(port):
    """Own processes that hold the listening socket of 127.0.0.1:port."""
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].split(":")[1], 16) == port:
            inodes.add(f"socket:[{fields[9]}]")
    found = []
    for pid in tree(os.getpid()):
        try:
            if any(os.readlink(f"/proc/{pid}/fd/{fd}") in inodes for fd in os.listdir(f"/proc/{pid}/fd")):
                found.append(pid)
        except OSError:
            pass
    return found


used_ports = set()


def port_range(low=7000, high=10000):
    """Ports for servers: below the range that outgoing connections take theirs from, so that no load of ours occupies one meanwhile, and
    apart from those that Muster chooses itself. Tests that run side by side take from parts of their own (MUSTER_TEST_PLACE, see
    Tests/TestSupport/TestPorts.swift, which has the same ranges)."""
    place = os.environ.get("MUSTER_TEST_PLACE", "").split("/")
    if len(place) != 2:
        return low, high
    width = (high - low) // int(place[1])
    return low + int(place[0]) * width, low + (int(place[0]) + 1) * width


def free_port():
    for _ in range(1000):
        port = random.randrange(*port_range())
        if port in used_ports:
            continue
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        used_ports.add(port)
        return port
    raise Failed("no free port")


def tail(path, lines=15):
    try:
        return "\n".join(Path(path).read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def start(command, log, env=None):
    with open(log, "ab") as out:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env)


def end(pids, patience=3.0):
    """SIGTERM, then SIGKILL for those still there: only descendants of ours are touched."""
    for number, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, 2.0)):
        mine = set(tree(os.getpid())) - {os.getpid()}
        pids = [pid for pid in pids if pid in mine]
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        until = time.monotonic() + wait
        while pids and time.monotonic() < until:
            reap()
            table = parents()
            pids = [pid for pid in pids if pid in table]
            time.sleep(0.02)
        if not pids:
            return


def reap():
    """Adopted processes that ended are no one else's to wait for. Popen objects bear that theirs is gone."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
