'use strict';
// Seconds that rates are taken over, and that curves show.
const WINDOW = 10, TREND = 120;
const COUNTERS = [['status_2xx', '2xx'], ['status_3xx', '3xx'], ['status_4xx', '4xx'], ['status_5xx', '5xx', 1], ['retries', 'retries', 1],
  ['upstream_failures', 'failures', 1], ['limited', 'limited', 1], ['shed', 'shed', 1], ['hedges', 'hedges'], ['tunnels', 'tunnels']];
const SIGNS = {ready: '✓', down: '✕', ejected: '⊘', draining: '↓', disabled: '‖', closed: '✓', open: '✕', half_open: '?'};
const $ = id => document.getElementById(id);

// MARK: small things

function el(tag, cls, ...inside) {
  const node = document.createElement(tag);
  if (cls) node.className = cls;
  node.append(...inside);
  return node;
}
function put(node, text) { if (node.textContent !== text) node.textContent = text; }
function attribute(node, name, value) { if (node.getAttribute(name) !== value) node.setAttribute(name, value); }
function toggle(node, cls, on) { if (node.classList.contains(cls) !== on) node.classList.toggle(cls, on); }
function group(value) { return Math.round(value).toLocaleString('en'); }
function rate(value) { return value == null ? '–' : value === 0 ? '0' : value < 9.95 ? value.toFixed(1) : value < 1e5 ? group(value) : count(value); }
function count(value) {
  if (value == null) return '–';
  if (value < 1e4) return group(value);
  const [unit, name] = value < 999950 ? [1e3, 'k'] : value < 999.95e6 ? [1e6, 'M'] : [1e9, 'G'];
  return (value / unit).toFixed(1) + name;
}
function percent(share) { return share == null ? '–' : share === 0 ? '0 %' : share < .001 ? '< 0.1 %' : (share * 100).toFixed(share < .0995 ? 1 : 0) + ' %'; }
function time(ms) {
  if (ms == null || isNaN(ms)) return '–';
  if (ms === Infinity) return '> 10 s';
  return ms < 1 ? ms.toFixed(2) + ' ms' : ms < 9.95 ? ms.toFixed(1) + ' ms' : ms < 999.5 ? ms.toFixed(0) + ' ms' : (ms / 1000).toFixed(1) + ' s';
}
function span(seconds) {
  const s = Math.max(0, Math.floor(seconds)), m = Math.floor(s / 60), h = Math.floor(m / 60), d = Math.floor(h / 24);
  return d ? d + ' d ' + h % 24 + ' h' : h ? h + ' h ' + m % 60 + ' m' : m ? m + ' m ' + s % 60 + ' s' : s + ' s';
}
function ago(when, now) {
  const seconds = (now - Date.parse(when)) / 1000;
  if (isNaN(seconds)) return '';
  return seconds < 120 ? Math.max(0, Math.floor(seconds)) + ' s ago' : seconds < 7200 ? Math.floor(seconds / 60) + ' min ago'
    : seconds < 172800 ? Math.floor(seconds / 3600) + ' h ago' : Math.floor(seconds / 86400) + ' d ago';
}

// MARK: what was there before

// The latest snapshots, oldest first, WINDOW seconds at most; and a curve of each route.
let snapshots = [], curves = new Map();

// Things of one name are told apart by their turn.
function keyed(list, name) {
  const map = new Map(), seen = new Map();
  for (const item of list) {
    const turn = (seen.get(name(item)) || 0) + 1;
    seen.set(name(item), turn);
    map.set(name(item) + '\n' + turn, item);
  }
  return map;
}
function snapshot(state) {
  const routes = keyed(state.routes, r => r.path);
  for (const route of routes.values()) route.members = keyed(route.replicas, x => (x.canary ? 'canary ' : '') + x.name);
  return {t: state.uptime_seconds, at: Date.parse(state.at), routes};
}
// Forgets what cannot be compared: another process, a route or a replica that counts anew, and what is too old.
function remember(now) {
  const last = snapshots.at(-1);
  const isNew = last && now.t < last.t;
  if (isNew) snapshots = [];
  snapshots = snapshots.filter(s => s.t < now.t && now.t - s.t < WINDOW + .8);
  const before = snapshots.at(-1);
  if (before) for (const [key, route] of now.routes) {
    const old = before.routes.get(key);
    if (old && fell(old, route)) for (const s of snapshots) s.routes.delete(key);
    else if (old) for (const [name, member] of route.members) {
      const earlier = old.members.get(name);
      if (earlier && earlier.requests > member.requests) for (const s of snapshots) s.routes.get(key)?.members.delete(name);
    }
  }
  snapshots.push(now);
  if (snapshots.length > 2 * WINDOW) snapshots.shift();
  return isNew;
}
function fell(old, route) {
  return old.requests > route.requests || COUNTERS.some(([key]) => old[key] > route[key]) || old.latency_counts.some((c, i) => c > route.latency_counts[i]);
}
// The change of a route over the window: seconds, and a function for the change of a field; null without a past.
function change(key) {
  const now = snapshots.at(-1), route = now.routes.get(key);
  const first = snapshots.find(s => s.routes.has(key));
  if (first === now) return null;
  const old = first.routes.get(key), seconds = now.t - first.t;
  return {
    seconds, of: field => route[field] - old[field],
    counts: route.latency_counts.map((c, i) => c - (old.latency_counts[i] || 0)),
    member(name) {
      const from = snapshots.find(s => s.routes.get(key)?.members.has(name)), past = from.routes.get(key).members.get(name);
      return from === now ? null : {seconds: now.t - from.t, past};
    }
  };
}
// From bucket counts, evenly within a bucket; beyond the last bound: Infinity.
function quantile(counts, bounds, share) {
  const total = counts.reduce((a, b) => a + b, 0);
  if (!(total > 0)) return null;
  let below = 0;
  for (let i = 0; i < counts.length; i++) {
    if (below + counts[i] >= share * total && counts[i] > 0) {
      if (i >= bounds.length) return Infinity;
      const low = i ? bounds[i - 1] : 0;
      return low + (bounds[i] - low) * (share * total - below) / counts[i];
    }
    below += counts[i];
  }
  return null;
}

// MARK: tiles

const tiles = {};
for (const [key, name] of [['rate', 'requests/s'], ['errors', '5xx'], ['p50', 'p50'], ['p95', 'p95'], ['p99', 'p99'], ['fit', 'replicas ready'],
  ['connections', 'connections'], ['uptime', 'uptime']]) {
  tiles[key] = el('dd', '', '–');
  $('tiles').append(el('div', '', el('dt', '', name), tiles[key]));
}
function showTiles(state, now) {
  let requests = 0, errors = 0, perSecond = 0, isKnown = false, counts = [], bounds = [], fit = 0, all = 0;
  for (const [key, route] of now.routes) {
    all += route.replicas.length;
    fit += route.replicas.filter(x => x.state === 'ready').length;
    const diff = change(key);
    if (!diff) continue;
    isKnown = true;
    requests += diff.of('requests');
    errors += diff.of('status_5xx');
    perSecond += diff.of('requests') / diff.seconds;
    bounds = route.latency_bounds_ms;
    diff.counts.forEach((c, i) => counts[i] = (counts[i] || 0) + c);
  }
  put(tiles.rate, isKnown ? rate(perSecond) : '–');
  put(tiles.errors, requests ? percent(errors / requests) : '–');
  toggle(tiles.errors, 'worse', requests > 0 && errors / requests > .01);
  for (const [key, share] of [['p50', .5], ['p95', .95], ['p99', .99]]) put(tiles[key], time(quantile(counts, bounds, share)));
  put(tiles.fit, fit + '/' + all);
  toggle(tiles.fit, 'worse', fit < all);
  put(tiles.connections, count(state.connections));
  put(tiles.uptime, span(state.uptime_seconds));
  document.title = (fit < all ? (all - fit) + ' not ready – ' : '') + 'Muster gateway';
}

// MARK: routes

const views = new Map();
function routeView(route, key) {
  const view = {rows: new Map(), facts: {}};
  const id = 'route' + (routeView.next = (routeView.next || 0) + 1);
  const title = el('h2', '', route.path), about = el('button', '', 'Decisions');
  title.id = id;
  about.type = 'button';
  about.setAttribute('aria-label', 'Decisions about the route ' + route.path);
  about.onclick = () => choose('route ' + route.path);
  view.chips = el('p', 'chips');
  view.now = el('b', '', '–');
  view.most = el('small');
  view.svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  for (const [name, value] of [['viewBox', '0 0 120 40'], ['preserveAspectRatio', 'none'], ['role', 'img']]) view.svg.setAttribute(name, value);
  [view.area, view.line] = ['area', 'line'].map(cls => {
    const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
    path.setAttribute('class', cls);
    view.svg.append(path);
    return path;
  });
  view.times = ['p50', 'p95', 'p99'].map(() => el('dd', '', '–'));
  const three = el('dl', 'three', ...['p50', 'p95', 'p99'].map((name, i) => el('div', '', el('dt', '', name), view.times[i])));
  const facts = el('dl', 'facts', ...COUNTERS.map(([name, label]) => {
    const now = el('span', '', '–'), all = el('small', '', ''), box = el('div', '', el('dt', '', label), el('dd', '', now, all));
    view.facts[name] = {now, all, box};
    return box;
  }));
  view.body = el('tbody');
  view.body.setAttribute('role', 'rowgroup');
  view.scroll = el('div', 'table', tableHead(view.body, 'Replicas of ' + route.path));
  view.node = el('section', 'card', el('div', 'head', title, about), view.chips,
    el('div', 'live', el('div', '', view.now, el('small', '', 'requests/s')), el('div', 'spark', view.svg, view.most), three), facts, view.scroll);
  view.node.setAttribute('aria-labelledby', id);
  view.title = title;
  return view;
}
const COLUMNS = ['Replica', 'State', 'Share', 'Requests/s', 'Mean', 'In flight', 'Failures', 'Errors', 'Weight', 'Priority'];
// Roles said again: on narrow screens the style makes blocks of rows, and some readers forget the table then.
function tableHead(body, name) {
  const row = el('tr', '', ...COLUMNS.map((label, i) => {
    const cell = el('th', i > 2 ? 'n' : '', label);
    cell.scope = 'col';
    cell.setAttribute('role', 'columnheader');
    return cell;
  }));
  row.setAttribute('role', 'row');
  const head = el('thead', '', row), table = el('table', 'replicas', el('caption', 'unseen', name), head, body);
  head.setAttribute('role', 'rowgroup');
  table.setAttribute('role', 'table');
  return table;
}
function replicaRow(replica) {
  const row = {cells: []};
  const name = el('button', 'name', replica.name), head = el('th', '', name);
  name.type = 'button';
  name.title = 'Decisions about ' + replica.name;
  name.onclick = () => choose(replica.name);
  head.scope = 'row';
  head.setAttribute('role', 'rowheader');
  if (replica.canary) head.append(' ', el('span', 'badge', 'canary'));
  if (replica.address !== replica.name) head.append(el('br'), el('small', '', replica.address));
  row.sign = el('i');
  row.sign.setAttribute('aria-hidden', 'true');
  row.word = el('span');
  row.state = el('span', 'state', row.sign, row.word);
  row.since = el('span', 'muted');
  row.why = el('span', 'why');
  row.bar = el('i');
  row.share = el('span', '', '–');
  const bar = el('span', '', row.bar);
  bar.setAttribute('aria-hidden', 'true');
  const cells = [el('td', '', row.state, ' ', row.since, row.why), el('td', '', el('div', 'share', bar, row.share))];
  for (const label of COLUMNS.slice(3)) {
    const cell = el('td', 'n', el('span', '', '–'), el('small', 'more'));
    cell.dataset.label = label;
    row.cells.push(cell);
    cells.push(cell);
  }
  for (const cell of cells) cell.setAttribute('role', 'cell');
  row.node = el('tr', '', head, ...cells);
  row.node.setAttribute('role', 'row');
  return row;
}
function showReplica(row, replica, diff, total, at) {
  const past = diff?.past, sent = past ? replica.requests - past.requests : null;
  attribute(row.state, 'class', 'state ' + replica.state);
  put(row.sign, SIGNS[replica.state] || '?');
  put(row.word, replica.state);
  put(row.since, ago(replica.since, at));
  const reason = replica.reason || '', why = reason.startsWith(replica.name + ' ') ? reason.slice(replica.name.length + 1) : reason;
  put(row.why, why);
  attribute(row.why, 'title', reason);
  const share = total > 0 && sent != null ? sent / total : null;
  row.bar.style.width = (share || 0) * 100 + '%';
  put(row.share, percent(share));
  const texts = [rate(past ? sent / diff.seconds : null), time(mean(replica, past)), count(replica.in_flight), count(replica.failures), count(replica.errors),
    String(replica.weight), String(replica.priority)];
  texts.forEach((text, i) => put(row.cells[i].firstChild, text));
  ['failures', 'errors'].forEach((key, i) => {
    const grown = past ? replica[key] - past[key] : 0;
    put(row.cells[3 + i].lastChild, grown > 0 ? '+' + count(grown) : '');
    toggle(row.cells[3 + i], 'worse', grown > 0);
  });
}
// Of the window, else of all its time.
function mean(replica, past) {
  if (past && replica.latency_ms != null) {
    const answered = replica.requests - replica.failures - past.requests + past.failures;
    return answered > 0 ? Math.max(0, replica.latency_ms - past.latency_ms) / answered : null;
  }
  return replica.mean_ms;
}
function showRoute(view, key, route, now) {
  const diff = change(key);
  put(view.now, diff ? rate(diff.of('requests') / diff.seconds) : '–');
  [.5, .95, .99].forEach((share, i) => put(view.times[i], diff ? time(quantile(diff.counts, route.latency_bounds_ms, share)) : '–'));
  for (const [name, , isBad] of COUNTERS) {
    const fact = view.facts[name], grown = diff ? diff.of(name) : null;
    put(fact.now, grown == null ? '–' : rate(grown / diff.seconds) + '/s');
    put(fact.all, count(route[name]) + ' in all');
    toggle(fact.now, 'worse', !!isBad && grown > 0);
    toggle(fact.box, 'zero', !route[name]);
  }
  showChips(view, route);
  showCurve(view, key);
  const changes = new Map();
  let total = 0;
  for (const [name, member] of route.members) {
    const one = diff ? diff.member(name) : null;
    changes.set(name, one);
    if (one) total += member.requests - one.past.requests;
  }
  for (const [name, row] of view.rows) if (!route.members.has(name)) { row.node.remove(); view.rows.delete(name); }
  let place = 0, seen = 0;
  for (const [name, member] of route.members) {
    let row = view.rows.get(name);
    if (!row || row.address !== member.address) { row?.node.remove(); row = replicaRow(member); row.address = member.address; view.rows.set(name, row); }
    if (view.body.children[place] !== row.node) view.body.insertBefore(row.node, view.body.children[place] || null);
    place++;
    showReplica(row, member, changes.get(name), total, now.at);
    row.node.hidden = !isWanted(member);
    if (!row.node.hidden) seen++;
  }
  view.scroll.hidden = place === 0;
  toggle(view.scroll, 'long', seen > 24);
  for (const [name, value] of [['tabindex', '0'], ['role', 'region'], ['aria-label', 'Replicas of ' + route.path]]) {
    if (seen > 24) attribute(view.scroll, name, value); else view.scroll.removeAttribute(name);
  }
}
function showChips(view, route) {
  const states = new Map(['ready', 'draining', 'disabled', 'ejected', 'down'].map(state => [state, 0]));
  for (const replica of route.replicas) states.set(replica.state, (states.get(replica.state) || 0) + 1);
  const parts = [[route.balance]];
  if (route.replicas.length) parts.push([route.replicas.length + (route.replicas.length === 1 ? ' replica' : ' replicas')]);
  for (const [state, number] of states) if (number) parts.push([SIGNS[state] + ' ' + number + ' ' + state, state]);
  if (route.cache) {
    const {hit, stale, validated, miss, failed} = route.cache, served = hit + stale + validated, all = served + miss + failed;
    if (all) parts.push(['cache: ' + percent(served / all) + ' hits']);
  }
  if (route.breaker) parts.push([SIGNS[route.breaker] + ' breaker ' + route.breaker.replace('_', ' '), route.breaker]);
  if (route.concurrency_limit != null) {
    const isFull = route.in_flight >= route.concurrency_limit;
    parts.push([route.in_flight + ' under way, ' + route.concurrency_limit + ' allowed' + (isFull ? ': full' : ''), isFull ? 'full' : '']);
  }
  while (view.chips.children.length > parts.length) view.chips.lastChild.remove();
  parts.forEach(([text, cls], i) => {
    const chip = view.chips.children[i] || view.chips.appendChild(el('span'));
    put(chip, text);
    attribute(chip, 'class', cls || '');
  });
}
// A point a second: what came since the snapshot before.
function extendCurves(now, clock) {
  const before = snapshots.at(-2);
  for (const [key, route] of now.routes) {
    const old = before?.routes.get(key);
    if (!old) continue;
    const curve = curves.get(key) || [];
    curve.push([clock, (route.requests - old.requests) / (now.t - before.t)]);
    while (curve.length > 2 * TREND || curve[0][0] < clock - TREND) curve.shift();
    curves.set(key, curve);
  }
  for (const key of curves.keys()) if (!now.routes.has(key)) curves.delete(key);
}
function showCurve(view, key) {
  const curve = curves.get(key) || [], clock = performance.now() / 1000;
  const most = Math.max(1, ...curve.map(p => p[1]));
  let line = '', area = '', begin = 0, last = null;
  for (const [t, value] of curve) {
    const x = (TREND + t - clock).toFixed(1), y = (39 - 37 * value / most).toFixed(1);
    const isGap = last == null || t - last > 5;
    if (isGap && last != null) area += 'L' + (TREND + last - clock).toFixed(1) + ' 40Z';
    area += (isGap ? 'M' + x + ' 40L' : 'L') + x + ' ' + y;
    line += (isGap ? 'M' : 'L') + x + ' ' + y;
    last = t;
  }
  if (last != null) area += 'L' + (TREND + last - clock).toFixed(1) + ' 40Z';
  attribute(view.line, 'd', line);
  attribute(view.area, 'd', area);
  put(view.most, curve.length ? 'most ' + rate(most) + '/s' : '');
  attribute(view.svg, 'aria-label', 'Requests per second over two minutes: now ' + view.now.textContent + ', most ' + rate(most));
}
function isWanted(replica) {
  if ($('filters').hidden) return true;
  return replica.name.includes($('filter').value.trim()) && !($('unfit').checked && replica.state === 'ready');
}
function showRoutes(now) {
  for (const [key, view] of views) if (!now.routes.has(key)) { view.node.remove(); views.delete(key); }
  let place = 0;
  for (const [key, route] of now.routes) {
    let view = views.get(key);
    if (!view) { view = routeView(route, key); views.set(key, view); }
    if ($('routes').children[place] !== view.node) $('routes').insertBefore(view.node, $('routes').children[place] || null);
    place++;
    showRoute(view, key, route, now);
  }
}
function show(state) {
  const now = snapshot(state), isNew = remember(now);
  $('filters').hidden = state.routes.reduce((sum, r) => sum + r.replicas.length, 0) < 12;
  extendCurves(now, performance.now() / 1000);
  put($('listen'), 'listens on ' + state.listen);
  showTiles(state, now);
  showRoutes(now);
  return isNew;
}
