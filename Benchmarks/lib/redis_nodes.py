"""Redis nodes for benchmarks: started here, formed into a cluster by the protocol's own commands, ended by their ids."""
import hashlib, os, signal, socket, subprocess, sys, time
from pathlib import Path


def packages(root):
    """The Python clients, in a private folder of the build."""
    target = root / ".build" / "bench-redis-python"
    wanted = ["redis==5.2.1", "valkey-glide==2.1.1"]
    stamp = target / "stamp"
    text = "\n".join(wanted) + sys.version
    if not stamp.exists() or stamp.read_text() != text:
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--upgrade", "--target", str(target)] + wanted, check=True)
        stamp.write_text(text)
    return target


def slot(key):
    import binascii
    return binascii.crc_hqx(key.encode(), 0) % 16384


class Nodes:
    def __init__(self, folder, masters=3, replicas=1, node_timeout=2000, first_port=21001):
        self.masters, self.replicas, self.folder, self.timeout = masters, replicas, folder, node_timeout
        self.ports = [first_port + i for i in range(masters * (replicas + 1))]
        self.processes = []

    def cli(self, port, *words):
        return subprocess.run(["redis-cli", "-h", "127.0.0.1", "-p", str(port), *map(str, words)], check=True, capture_output=True, text=True).stdout.strip()

    def __enter__(self):
        for port in self.ports:
            place = Path(self.folder) / str(port)
            place.mkdir()
            self.processes.append(subprocess.Popen(
                ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(place), "--cluster-enabled", "yes", "--save", "", "--appendonly", "no",
                 "--cluster-node-timeout", str(self.timeout), "--repl-diskless-sync-delay", "0"], stdout=subprocess.DEVNULL))
        for port in self.ports: self.wait(lambda: self.reachable(port))
        for i in range(self.masters):
            self.cli(self.ports[i], "cluster", "addslotsrange", 16384 * i // self.masters, 16384 * (i + 1) // self.masters - 1)
            self.cli(self.ports[i], "cluster", "set-config-epoch", i + 1)
        for port in self.ports[1:]: self.cli(port, "cluster", "meet", "127.0.0.1", self.ports[0])
        for port in self.ports: self.wait(lambda: f"cluster_known_nodes:{len(self.ports)}" in self.cli(port, "cluster", "info"))
        for i, port in enumerate(self.ports[self.masters:]):
            self.cli(port, "cluster", "replicate", self.cli(self.ports[i % self.masters], "cluster", "myid"))
        for port in self.ports: self.wait(lambda: "cluster_state:ok" in self.cli(port, "cluster", "info"))
        return self

    def reachable(self, port):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            return False

    def wait(self, condition, limit=20):
        end = time.monotonic() + limit
        while not condition():
            if time.monotonic() > end: raise TimeoutError("the nodes do not become a cluster")
            time.sleep(0.05)

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()
