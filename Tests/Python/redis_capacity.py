#!/usr/bin/env python3
"""How much data a Redis Cluster takes, and what a snapshot costs while it is written to.

    redis_capacity.py --dir EMPTY_FOLDER [--maxmemory 64] [--value 1000]

Starts six nodes in the folder, forms a cluster, writes until a master refuses, and prints a table. Then it writes over what is
there while every master makes a snapshot. Needs redis-server and redis-cli. Ends its own processes only.
"""
import argparse, os, secrets, socket, subprocess, sys, time

a = argparse.ArgumentParser()
a.add_argument("--dir", required=True)
a.add_argument("--maxmemory", type=int, default=64, help="MiB of each node")
a.add_argument("--value", type=int, default=1000, help="bytes of a value")
a.add_argument("--port", type=int, default=27101)
a = a.parse_args()
password = secrets.token_hex(8)
ports = [a.port + i for i in range(6)]


class Node:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.file = self.socket.makefile("rb")
        self.ask("AUTH", password)

    def send(self, commands):
        self.socket.sendall(b"".join(b"*%d\r\n" % len(c) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in c) for c in commands))

    def reply(self):
        line = self.file.readline()
        if line[:1] == b"$":
            text = self.file.read(int(line[1:]) + 2)[:-2]
            return text.decode()
        return line[:-2].decode()

    def ask(self, *words):
        self.send([[str(w).encode() for w in words]])
        return self.reply()

    def info(self, section):
        return dict(l.split(":", 1) for l in self.ask("INFO", section).splitlines() if ":" in l)


def memory(pid):
    """Its share of the machine's memory, in bytes: pages that parent and child have in common count half for each."""
    return sum(int(line.split()[1]) * 1024 for line in open(f"/proc/{pid}/smaps_rollup") if line.startswith("Pss:"))


servers = []
try:
    for port in ports:
        folder = os.path.abspath(os.path.join(a.dir, str(port)))
        os.makedirs(folder)
        lines = ["bind 127.0.0.1", f"port {port}", f"dir {folder}", f"requirepass {password}", f"masterauth {password}", "appendonly yes", 'save ""',
                 "cluster-enabled yes", "cluster-node-timeout 5000", "repl-diskless-sync-delay 0", f"maxmemory {a.maxmemory}mb", "maxmemory-policy noeviction"]
        server = subprocess.Popen(["redis-server", "-"], stdin=subprocess.PIPE, stdout=open(folder + "/log", "w"), cwd=folder)
        server.stdin.write("\n".join(lines + [""]).encode())
        server.stdin.close()
        servers.append(server)
    time.sleep(1)
    subprocess.run(["redis-cli", "--cluster", "create", *[f"127.0.0.1:{p}" for p in ports], "--cluster-replicas", "1", "--cluster-yes"],
                   env={**os.environ, "REDISCLI_AUTH": password}, stdout=subprocess.DEVNULL, check=True)
    nodes = [Node(p) for p in ports]
    while not all("cluster_state:ok" in n.ask("CLUSTER", "INFO") for n in nodes) or not all(n.info("replication").get("master_link_status") == "up" for n in nodes[3:]):
        time.sleep(0.2)
    masters = nodes[:3]
    tags = []
    for m in masters:
        tag = 0
        while not m.ask("SET", "{%d}probe" % tag, "x").startswith("+"):
            tag += 1
        m.ask("DEL", "{%d}probe" % tag)
        tags.append(tag)
    value = os.urandom(a.value)
    empty = [int(m.info("memory")["used_memory"]) for m in masters]
    stored = []
    for m, tag in zip(masters, tags):
        count, refused = 0, ""
        while not refused:
            m.send([[b"SET", b"{%d}key-%08d" % (tag, count + i), value] for i in range(200)])
            for answer in [m.reply() for _ in range(200)]:
                if answer.startswith("+"):
                    count += 1
                else:
                    refused = answer
        stored.append(count)
    print(f"six nodes of {a.maxmemory} MiB, values of {a.value} bytes; the first refusal: {refused}")
    print("node      keys   values MiB  empty MiB  used MiB  rss MiB  fragmentation")
    for m, port, count, before in zip(masters, ports, stored, empty):
        i = m.info("memory")
        print(f"{port}  {count:7d}  {count * a.value / 2**20:10.1f}  {before / 2**20:9.1f}  {int(i['used_memory']) / 2**20:8.1f}  {int(i['used_memory_rss']) / 2**20:7.1f}  {i['mem_fragmentation_ratio']:>6}")
    usable = sum(stored) * a.value / 2**20
    print(f"values stored: {usable:.1f} MiB of {6 * a.maxmemory} MiB raw: {usable / (6 * a.maxmemory):.0%}")

    print("\na snapshot on every master while its keys are written again (as fast as one connection may)")
    print("node         before   server + child, most  factor  cow MiB  writes meanwhile")
    for m, port, count, tag, server in zip(masters, ports, stored, tags, servers):
        before = memory(server.pid)
        m.ask("CONFIG", "SET", "maxmemory", "0")  # a full node refuses to overwrite, too
        m.ask("CONFIG", "SET", "rdb-key-save-delay", "50")  # a disk that takes a few seconds
        m.ask("BGSAVE")
        most, written = before, 0
        while int(m.info("persistence")["rdb_bgsave_in_progress"]):
            m.send([[b"SET", b"{%d}key-%08d" % (tag, (written + i) * 7919 % count), value] for i in range(500)])
            written += sum(m.reply().startswith("+") for _ in range(500))
            children = subprocess.run(["pgrep", "-P", str(server.pid)], capture_output=True, text=True).stdout.split()
            try:
                most = max(most, memory(server.pid) + sum(memory(c) for c in children))
            except OSError:
                pass
        cow = int(m.info("persistence")["rdb_last_cow_size"])
        print(f"{port}  {before / 2**20:10.1f} MiB  {most / 2**20:16.1f} MiB  {most / before:6.2f}  {cow / 2**20:7.1f}  {written}")
finally:
    for server in servers:
        server.kill()
        server.wait()
