// MARK: scaling

// Milliseconds that a timeline shows, points that are asked for at first and at most, pixels between two marks.
const HOUR = 3600e3, FEW = 240, MANY = 1440, APART = 26;
const scaled = new Map();
let scalingDue = 0, points = FEW;
async function askScaling(now) {
  if (now < scalingDue) return;
  // Of what runs alone nothing scales: it is asked again when it has begun anew.
  let list = [];
  scalingDue = Infinity;
  try { list = await ask('/api/scaling?points=' + points); } catch (error) { if (error.status === 404) return showScaling([]); scalingDue = 0; throw error; }
  const period = Math.max(2000, Math.min(5000, ...list.map(s => s.period_ms)));
  const enough = Math.min(MANY, Math.max(FEW, Math.ceil(HOUR / Math.min(15000, ...list.map(s => s.period_ms)))));
  scalingDue = enough === points ? now + period - 500 : 0;
  points = enough;
  showScaling(list);
  for (const service of list) await askMarks(scaled.get(service.service), service);
}
function showScaling(list) {
  $('scaling').hidden = !list.length;
  for (const [name, view] of scaled) if (!list.some(s => s.service === name)) { view.observer.disconnect(); view.node.remove(); scaled.delete(name); }
  for (const service of list) {
    let view = scaled.get(service.service);
    if (!view) { view = scaledView(service.service); scaled.set(service.service, view); $('scaled').append(view.node); view.observer.observe(view.main.plot); }
    showScaled(view, service);
  }
}
// Decisions are asked for only when there is a new one.
async function askMarks(view, service) {
  const turns = service.timeline.filter(p => p.outcome !== p.replicas);
  const print = [service.replicas, service.held, turns.length, turns.at(-1)?.at].join(' ');
  if (view.print === print) return;
  const list = await ask('/api/why?' + new URLSearchParams({subject: service.service, kind: 'scale', last: '200'}));
  view.print = print;
  view.decisions = list.filter(d => d.subject === service.service && sign(d)).map(d => ({...d, t: Date.parse(d.at)}));
  drawMarks(view);
}
// What a decision did to the size; empty when it only told why it stays.
function sign(decision) {
  const {replicas, before, asked, expected} = decision.inputs || {}, from = +(replicas ?? before ?? expected), to = +decision.outcome;
  return to > from ? '▲' : to < from ? '▼' : asked || expected ? '●' : '';
}

// MARK: one scaled service

function svg(parent, tag, cls) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  node.setAttribute('class', cls);
  parent.append(node);
  return node;
}
// A label, an axis, and a plot with the lines that are named.
function lane(label, tall, lines) {
  const view = {name: el('span', '', label), now: el('b'), more: el('small'), cursor: el('i', 'cursor'), ticks: [], lines: {}};
  view.plot = el('div', tall);
  view.svg = svg(view.plot, 'svg', '');
  view.svg.setAttribute('aria-hidden', 'true');
  view.svg.setAttribute('preserveAspectRatio', 'none');
  for (const name of lines) view.lines[name] = svg(view.svg, 'path', name);
  view.cursor.hidden = true;
  view.plot.append(view.cursor);
  view.node = el('div', 'lane', el('div', 'about', view.name, view.now, view.more), view.plot);
  return view;
}
function scaledView(name) {
  const view = {decisions: [], buttons: new Map(), metrics: [], service: null, list: [], at: null, open: null};
  const title = el('h3', '', name), about = el('button', '', 'Decisions');
  title.id = 'scaled' + (scaledView.next = (scaledView.next || 0) + 1);
  about.type = 'button';
  about.setAttribute('aria-label', 'Decisions about ' + name);
  about.onclick = () => choose(name);
  view.size = el('span', 'chips');
  view.sentence = el('p', 'standing');
  view.flip = el('small');
  view.readout = el('p', 'readout');
  view.main = lane('Replicas', 'plot tall', ['band', 'area', 'edge', 'ticks', 'raw', 'line']);
  view.rail = el('div', 'rail');
  view.rail.setAttribute('role', 'group');
  view.rail.setAttribute('aria-label', 'Decisions that changed the size of ' + name);
  view.rail.onkeydown = event => walkMarks(view, event);
  view.marks = el('div', 'lane', el('div', 'about', el('span', '', 'Decided')), view.rail);
  view.times = el('div', 'times');
  view.times.setAttribute('aria-hidden', 'true');
  view.more = el('div');
  view.scrub = scrub(view, name);
  view.told = el('ol', 'told');
  view.told.id = title.id + 'told';
  view.told.setAttribute('aria-live', 'polite');
  const legend = el('p', 'legend', ...[['line', 'replicas'], ['area', 'serving'], ['raw', 'wanted, before limits'], ['band', 'allowed'], ['target', 'target']].map(
    ([cls, text]) => el('span', '', el('i', cls), text)));
  view.node = el('article', 'card', el('div', 'head', el('div', 'head', title, view.size), about), view.sentence, view.flip, legend, view.readout,
    el('div', 'lanes', view.marks, view.main.node, view.more, view.times, view.scrub), view.told);
  view.node.setAttribute('aria-labelledby', title.id);
  view.observer = new ResizeObserver(() => drawScaled(view));
  return view;
}
function showScaled(view, service) {
  view.service = service;
  view.list = service.timeline.map(p => ({...p, t: Date.parse(p.at)})).filter(p => !isNaN(p.t));
  const last = view.list.at(-1);
  view.end = last ? last.t : 0;
  view.list = view.list.filter(p => p.t >= view.end - HOUR);
  // At least two minutes, so that a beginning is no single step over the whole width.
  view.begin = Math.min(view.list[0]?.t ?? 0, view.end - 120e3);
  const range = service.minimum === service.maximum ? service.minimum : service.minimum + ' to ' + service.maximum;
  const parts = [[service.replicas + (service.replicas === 1 ? ' replica' : ' replicas')], [range + ' allowed'],
    ...(service.held != null ? [['held at ' + service.held + ' by hand', 'full']] : [])];
  while (view.size.children.length > parts.length) view.size.lastChild.remove();
  parts.forEach(([text, cls], i) => {
    const chip = view.size.children[i] || view.size.appendChild(el('span'));
    put(chip, text);
    attribute(chip, 'class', cls || '');
  });
  put(view.sentence, service.standing?.sentence || 'Nothing has been decided yet.');
  put(view.flip, service.standing?.flip ? 'Otherwise if: ' + service.standing.flip : '');
  while (view.metrics.length > service.metrics.length) view.metrics.pop().node.remove();
  service.metrics.forEach((metric, i) => {
    if (!view.metrics[i]) { view.metrics[i] = lane('', 'plot', ['target', 'line']); view.more.append(view.metrics[i].node); }
    put(view.metrics[i].name, metric.name);
  });
  drawScaled(view);
}

// MARK: drawing

// A path over the points: steps or straight lines, broken where there is no figure or no point for a while.
function path(view, value, y, isStep, floor) {
  const gap = 3 * view.service.period_ms + 5000, put = number => number.toFixed(1);
  let out = '', last = null, x = 0;
  const close = () => { if (last && floor != null) out += 'V' + floor + 'Z'; };
  for (const point of view.list) {
    const figure = value(point);
    if (figure == null || last && point.t - last.t > gap) { close(); last = null; if (figure == null) continue; }
    x = put(view.x(point.t));
    const height = put(y(figure));
    out += !last ? 'M' + x + ' ' + (floor != null ? floor + 'V' : '') + height + 'h.1' : isStep ? 'H' + x + 'V' + height : 'L' + x + ' ' + height;
    last = point;
  }
  close();
  return out;
}
function across(y, width) { return 'M0 ' + y.toFixed(1) + 'H' + width; }
function tick(lane, i, text, y) {
  const node = lane.ticks[i] || (lane.ticks[i] = lane.plot.appendChild(el('small', 'tick')));
  put(node, text);
  node.hidden = text === '';
  node.style.top = y.toFixed(1) + 'px';
}
function drawScaled(view) {
  const width = view.main.plot.clientWidth, service = view.service;
  if (!width || !service) return;
  view.width = width;
  view.x = t => (t - view.begin) / (view.end - view.begin) * width;
  drawMain(view, width, service);
  service.metrics.forEach((metric, i) => drawMetric(view, view.metrics[i], metric, i, width));
  drawTimes(view, width);
  drawMarks(view);
  read(view);
}
// What is wanted may be far beyond what is allowed: the plot ends half as far again, and the line runs along its edge.
function drawMain(view, width, service) {
  const lane = view.main, height = lane.plot.clientHeight;
  const most = Math.max(1, service.maximum, ...view.list.map(p => Math.max(p.replicas, p.serving)));
  const top = Math.max(most + .5, Math.min(most * 1.5, Math.max(0, ...view.list.map(p => p.raw ?? 0)) + .5));
  const y = value => height - 1 - (height - 3) * Math.min(value, top) / top;
  attribute(lane.svg, 'viewBox', '0 0 ' + width + ' ' + height);
  attribute(lane.lines.band, 'd', 'M0 ' + y(service.maximum).toFixed(1) + 'H' + width + 'V' + y(service.minimum).toFixed(1) + 'H0Z');
  attribute(lane.lines.edge, 'd', across(y(service.maximum), width) + across(y(service.minimum), width));
  attribute(lane.lines.area, 'd', path(view, p => p.serving, y, true, height));
  attribute(lane.lines.raw, 'd', path(view, p => p.raw, y, true));
  attribute(lane.lines.line, 'd', path(view, p => p.replicas, y, true));
  tick(lane, 0, String(service.maximum), y(service.maximum));
  tick(lane, 1, y(service.minimum) - y(service.maximum) > 14 && height - y(service.minimum) > 16 ? String(service.minimum) : '', y(service.minimum));
  tick(lane, 2, '0', height - 2);
}
function drawMetric(view, lane, metric, i, width) {
  const height = lane.plot.clientHeight, target = metric.target ?? metric.target_milli;
  const top = 1.1 * Math.max(target * 1.2, ...view.list.map(p => p.measured[i] ?? 0)) || 1;
  const y = value => height - 1 - (height - 3) * value / top;
  attribute(lane.svg, 'viewBox', '0 0 ' + width + ' ' + height);
  attribute(lane.lines.target, 'd', across(y(target), width));
  attribute(lane.lines.line, 'd', path(view, p => p.measured[i], y, false));
  put(lane.more, 'target ' + amount(metric, target));
}
// A measured figure in its unit: a share in percent, anything else in thousandths.
function amount(metric, value) {
  if (value == null) return '–';
  if (metric.kind === 'utilization') return group(value) + ' %';
  const whole = value / 1000, name = metric.name.split(' ')[0];
  if (name === 'cpu') return group(value) + 'm';
  if (name === 'memory') return whole < 1048576 ? group(whole / 1024) + ' KiB' : group(whole / 1048576) + ' MiB';
  if (name === 'requests') return rate(whole) + '/s';
  return name === 'latency' ? time(whole) : rate(whole);
}
// Round times, at least 70 pixels from one to the next.
function drawTimes(view, width) {
  const length = view.end - view.begin, step = [15e3, 30e3, 60e3, 120e3, 300e3, 600e3, 900e3, 1800e3].find(s => width * s / length >= 70) || HOUR;
  const zone = new Date(view.end).getTimezoneOffset() * 60e3, list = [];
  for (let t = Math.ceil((view.begin - zone) / step) * step + zone; t <= view.end; t += step) list.push(t);
  while (view.times.children.length > list.length) view.times.lastChild.remove();
  list.forEach((t, i) => {
    const node = view.times.children[i] || view.times.appendChild(el('small'));
    const text = new Date(t).toLocaleTimeString('en-GB'), x = view.x(t);
    put(node, step < 60e3 ? text : text.slice(0, 5));
    node.style.left = x.toFixed(1) + 'px';
    node.hidden = x < 20 || x > width - 20;
  });
  attribute(view.main.lines.ticks, 'd', list.map(t => 'M' + view.x(t).toFixed(1) + ' 0V' + view.main.plot.clientHeight).join(''));
}

// MARK: decisions on the timeline

// Those that are too near to each other to be hit share a mark.
function drawMarks(view) {
  if (!view.width) return;
  const groups = [];
  for (const decision of view.decisions) {
    if (decision.t < view.begin || decision.t > view.end + 60e3) continue;
    const x = Math.min(view.x(decision.t), view.width), last = groups.at(-1);
    if (last && x - last.x < APART) last.list.push(decision); else groups.push({x, list: [decision]});
  }
  view.groups = groups;
  view.marks.hidden = !groups.length;
  for (const [key, button] of view.buttons) if (!groups.some(g => g.list[0].at === key)) { button.remove(); view.buttons.delete(key); }
  const focused = groups.some(g => view.buttons.get(g.list[0].at)?.tabIndex === 0);
  groups.forEach((group, i) => {
    const key = group.list[0].at;
    let button = view.buttons.get(key);
    if (!button) {
      button = el('button', 'mark');
      button.type = 'button';
      button.tabIndex = -1;
      button.onclick = () => { view.open = view.open === key ? null : key; showTold(view); };
      button.onfocus = () => { for (const other of view.buttons.values()) other.tabIndex = other === button ? 0 : -1; };
      button.setAttribute('aria-controls', view.told.id);
      view.buttons.set(key, button);
    }
    if (!focused && i === groups.length - 1) button.tabIndex = 0;
    if (view.rail.children[i] !== button) view.rail.insertBefore(button, view.rail.children[i] || null);
    button.style.left = group.x.toFixed(1) + 'px';
    const signs = new Set(group.list.map(sign));
    put(button, group.list.length > 1 ? (signs.size > 1 ? '◆' : [...signs][0]) + group.list.length : sign(group.list[0]));
    const text = group.list.length > 1 ? group.list.length + ' decisions from ' + clock(group.list[0].t) : clock(group.list[0].t) + ': ' + group.list[0].sentence;
    attribute(button, 'aria-label', text);
    attribute(button, 'title', text);
  });
  showTold(view);
}
function clock(t) { return new Date(t).toLocaleTimeString('en-GB'); }
function showTold(view) {
  const group = view.groups.find(g => g.list.some(d => d.at === view.open));
  for (const [key, button] of view.buttons) attribute(button, 'aria-expanded', String(group?.list[0].at === key));
  const list = group ? group.list : [], print = list.map(d => d.at).join();
  if (view.toldPrint === print) return;
  view.toldPrint = print;
  view.told.replaceChildren(...list.map(d => el('li', '', el('time', '', clock(d.t)), el('div', '', d.sentence, ...(d.flip ? [el('small', '', 'Otherwise if: ' + d.flip)] : [])))));
}
function walkMarks(view, event) {
  const list = [...view.rail.children], i = list.indexOf(document.activeElement);
  const to = {ArrowLeft: i - 1, ArrowRight: i + 1, Home: 0, End: list.length - 1}[event.key];
  if (to == null || i < 0) return;
  event.preventDefault();
  list[Math.max(0, Math.min(list.length - 1, to))].focus();
}

// MARK: reading a point

// Lies over all plots: a pointer and the arrow keys move through the points.
function scrub(view, name) {
  const node = el('div', 'scrub');
  for (const [key, value] of [['role', 'slider'], ['tabindex', '0'], ['aria-label', 'Timeline of ' + name], ['aria-orientation', 'horizontal']]) node.setAttribute(key, value);
  const move = event => {
    const t = view.begin + (event.clientX - view.main.plot.getBoundingClientRect().left) / view.width * (view.end - view.begin);
    const near = view.list.reduce((best, p) => !best || Math.abs(p.t - t) < Math.abs(best.t - t) ? p : best, null);
    view.at = near && near.t;
    read(view);
  };
  node.onpointermove = move;
  node.onpointerdown = move;
  node.onpointerleave = () => { if (document.activeElement !== node) { view.at = null; read(view); } };
  node.onblur = () => { view.at = null; read(view); };
  node.onfocus = () => read(view);
  node.onkeydown = event => {
    const last = view.list.length - 1, i = index(view);
    const to = {ArrowLeft: i - 1, ArrowDown: i - 1, ArrowRight: i + 1, ArrowUp: i + 1, PageDown: i - 12, PageUp: i + 12, Home: 0, End: last}[event.key];
    if (to == null || last < 0) return;
    event.preventDefault();
    view.at = view.list[Math.max(0, Math.min(last, to))].t;
    read(view);
  };
  return node;
}
function index(view) {
  const i = view.at == null ? -1 : view.list.findIndex(p => p.t >= view.at);
  return i < 0 ? view.list.length - 1 : i;
}
// The point under the cursor, else the latest.
function read(view) {
  const i = index(view), point = view.list[i], isChosen = view.at != null && point;
  const lanes = [view.main, ...view.metrics];
  for (const lane of lanes) {
    lane.cursor.hidden = !isChosen;
    if (isChosen) lane.cursor.style.left = view.x(point.t).toFixed(1) + 'px';
  }
  view.scrub.hidden = !point;
  if (!point) return put(view.readout, 'No pass of the autoscaler yet.');
  const figures = view.service.metrics.map((metric, i) => amount(metric, point.measured[i]));
  put(view.main.now, String(point.replicas));
  put(view.main.more, point.serving === point.replicas ? 'all serving' : point.serving + ' serving');
  figures.forEach((text, i) => put(view.metrics[i].now, text));
  const text = clock(point.t) + ': ' + point.replicas + (point.replicas === 1 ? ' replica, ' : ' replicas, ') + point.serving + ' serving, '
    + (point.raw ?? '–') + ' wanted' + (point.outcome !== point.replicas ? ', goes to ' + point.outcome : '')
    + view.service.metrics.map((metric, i) => '; ' + metric.name + ' ' + figures[i]).join('');
  put(view.readout, isChosen ? text : 'Now ' + text);
  for (const [key, value] of [['min', 0], ['max', view.list.length - 1], ['now', i], ['text', text]]) attribute(view.scrub, 'aria-value' + key, String(value));
}
