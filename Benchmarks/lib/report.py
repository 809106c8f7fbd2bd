"""The tables for people, in Markdown."""

from measure import ROWS, median


def number(value, digits=1):
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 or digits == 0 else f"{value:.{digits}f}"


def table(head, lines):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(line) + " |" for line in lines)])


def medians(rounds, key, scale=1.0):
    values = [r[key] * scale for r in rounds]
    return median(values)


def compared(title, columns, figures, titles, failures, notes=None):
    """A table of peers and a last line of Muster over the best of the others. Columns: (head, higher is better, digits)."""
    lines = []
    for peer, values in figures.items():
        cells = [number(v, c[2]) for v, c in zip(values, columns)]
        note = (notes or {}).get(peer)
        lines.append([titles[peer] + (f" ({note})" if note else ""), *cells])
    for peer, why in failures.items():
        if peer not in figures:
            lines.append([titles[peer], "failed: " + why.splitlines()[0].replace("|", "/"), *[""] * (len(columns) - 1)])
    if "muster" in figures and len(figures) > 1:
        ratios = []
        for i, (_, higher, _) in enumerate(columns):
            others = [v[i] for p, v in figures.items() if p != "muster" and v[i] is not None]
            best = (max if higher else min)(others) if others else None
            ours = figures["muster"][i]
            ratios.append(f"{ours / best:.2f}" if best and best > 0 and ours is not None else "-")
        lines.append(["Muster / best peer", *ratios])
    return f"### {title}\n\n" + table(["", *(c[0] for c in columns)], lines)


def row_table(row, data, titles):
    title, connections, _ = ROWS[row]
    rate = data.get("rate")
    fixed = f"{rate:,.0f}/s" if rate else "fixed rate"
    columns = [("requests/s", True, 0), ("CPU us", False, 1), ("p99 ms", False, 2), (f"at {fixed}: CPU us", False, 1), ("p50 ms", False, 2), ("p99 ms", False, 2), ("p99.9 ms", False, 2)]
    figures, notes = {}, {}
    for peer, rounds in data["full"].items():
        if not rounds or peer in data["failures"]:
            continue
        open_loop = data["fixed"].get(peer) or []
        later = [medians(open_loop, "cpu_us")] + [medians(open_loop, k, 0.001) for k in ("p50", "p99", "p999")] if open_loop else [None] * 4
        figures[peer] = [medians(rounds, "rate"), medians(rounds, "cpu_us"), medians(rounds, "p99", 0.001), *later]
        if peer in data["above"]:
            notes[peer] = "the rate is above its limit"
    return compared(f"{title}, {connections} connections", columns, figures, titles, data["failures"], notes)


def sockets_table(rows, titles):
    """What it saves, at both ends, that the backends are asked at Unix sockets and not on ports; as fast as it goes."""
    lines = []
    for peer in rows["unix"]["full"]:
        both = [rows[row]["full"].get(peer) or [] for row in ("get", "unix")]
        if all(both) and not any(peer in rows[row]["failures"] for row in ("get", "unix")):
            figures = [[medians(rounds, key) for rounds in both] for key in ("cpu_us", "backend_us")]
            lines.append([titles[peer], *(cell for port, socket in figures for cell in (number(port), number(socket), f"{socket / port:.2f}" if port else "-"))])
    head = ["", "CPU us, ports", "sockets", "ratio", "backend's CPU us, ports", "sockets", "ratio"]
    return "### Ports and Unix sockets: GET, 100 B\n\n" + table(head, lines)


def idle_table(data, titles):
    columns = [("RSS, bytes a connection", False, 0), ("PSS, bytes a connection", False, 0), ("RSS before, MB", False, 1), ("RSS with them, MB", False, 1)]
    figures = {p: [medians(r, "rss"), medians(r, "pss"), medians(r, "base_rss", 1e-6), medians(r, "all_rss", 1e-6)] for p, r in data["rounds"].items() if r and p not in data["failures"]}
    text = compared(f"Memory of {data['count']:,} idle connections", columns, figures, titles, data["failures"])
    return text + "\n\nGrowth from one process that has served a little to the same with the connections; what nginx and HAProxy reserve at start is in `before`."


def clients_table(data, titles):
    columns = [("p50 ms", False, 2), ("p95 ms", False, 2), ("p99 ms", False, 2), ("CPU us", False, 1), ("RSS MB", False, 1), ("failed", False, 0)]
    figures = {}
    for p, r in data["rounds"].items():
        if r and p not in data["failures"]:
            figures[p] = [*(medians(r, k, 0.001) for k in ("p50", "p95", "p99")), medians(r, "cpu_us"), medians(r, "rss", 1e-6), max(x["failed"] for x in r)]
    return compared(f"{data['count']:,} clients, {data['rate']:,.0f} requests/s in all", columns, figures, titles, data["failures"])


def signals_table(data, titles):
    lines = []
    for row, cases in data.items():
        for peer, case in cases.items():
            head = [f"{titles[peer]}, {case['signal']}"]
            if "error" in case:
                lines.append([*head, "failed: " + case["error"].splitlines()[0], "", "", ""])
                continue
            cells = []
            for kind in ("kept", "new"):
                r = case[kind]
                stale = f", {r['errors']['stale']} of them as the server closed" if r["errors"]["stale"] else ""
                cells.append(f"{r['failed']:,} of {r['requests'] + r['failed']:,}{stale}")
            done = f"{case['carried_out']} of {case['sent']}" + (f" ({case['why']})" if case["why"] else "")
            lines.append([*head, done, *cells, number(max(case["kept"]["max"], case["new"]["max"]) / 1000, 1)])
    return "### Reload and replacement under load\n\n" + table(["", "carried out", "failed on kept connections", "failed on new connections", "longest ms"], lines)


def disturbance(results):
    others = [r["others"] for row in results["rows"].values() for phase in ("full", "fixed") for rounds in row[phase].values() for r in rounds]
    if not others:
        return ""
    text = f"Other programs took {median(others):.0%} of the processors (median; at most {max(others):.0%}) while this was measured"
    return text + (": trust the ratios more than the figures, and neither much." if median(others) > 0.1 else ".")


def everything(results):
    titles = results["titles"]
    parts = [
        "CPU is the program's own, microseconds a request, all its processes and threads. Left: as fast as it goes; right: at one rate for all, times from when"
        " a request was due. " + f"Medians of {results['rounds']} interleaved rounds of {results['seconds']:g} s. " + disturbance(results)
    ]
    parts += [row_table(row, data, titles) for row, data in results["rows"].items()]
    if {"get", "unix"} <= set(results["rows"]):
        parts.append(sockets_table(results["rows"], titles))
    if "idle" in results:
        parts.append(idle_table(results["idle"], titles))
    if "clients" in results:
        parts.append(clients_table(results["clients"], titles))
    if results.get("signals"):
        parts.append(signals_table(results["signals"], titles))
    if results.get("wrk"):
        ours = results["rows"].get("get", {}).get("full", {})
        lines = [[titles[p], number(medians(ours.get(p) or [], "rate"), 0), number(v, 0)] for p, v in results["wrk"].items()]
        parts.append("### Cross-check: GET, 100 B, requests/s\n\n" + table(["", "load.c", "wrk"], lines))
    lines = []
    for peer, f in results["features"].items():
        lines.append(f"{titles[peer]}: " + ", ".join(w for k, w in (("forwarded_for", "X-Forwarded-For"), ("request_id", "X-Request-Id")) if f.get(k)))
    parts.append("Added for the backend: " + "; ".join(lines) + ". Metrics: always counted by Muster, HAProxy and Envoy; off in nginx, Traefik and Caddy.")
    return "\n\n".join(parts)
