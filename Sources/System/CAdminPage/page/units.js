// MARK: stores, workers and tasks

// What the stack runs beside the gateway's replicas. Nodes are kept, and only what differs is written.
const units = new Map();
let unitsDue = 0;
async function askUnits(now) {
  if (now < unitsDue) return;
  // A gateway that runs alone has none: it is asked again when it has begun anew.
  let list = [];
  unitsDue = Infinity;
  try { list = await ask('/api/replicas'); } catch (error) { if (error.status === 404) return showUnits([]); unitsDue = 0; throw error; }
  unitsDue = now + 1500;
  showUnits(list.filter(unit => unit.kind || unit.port == null));
}
function showUnits(list) {
  $('units').hidden = !list.length;
  const at = Date.now(), names = new Set(list.map(unit => unit.service + '/' + unit.replica));
  for (const [name, row] of units) if (!names.has(name)) { row.node.remove(); units.delete(name); }
  let place = 0;
  for (const unit of list) {
    const name = unit.service + '/' + unit.replica;
    let row = units.get(name);
    if (!row) { row = unitRow(unit, name); units.set(name, row); }
    if ($('unitrows').children[place] !== row.node) $('unitrows').insertBefore(row.node, $('unitrows').children[place] || null);
    place++;
    attribute(row.state, 'class', 'state ' + unit.state);
    put(row.sign, UNIT_SIGNS[unit.state] || '?');
    put(row.word, unit.state);
    put(row.since, ago(unit.since, at));
    put(row.why, unit.trouble || '');
    put(row.kind, (unit.kind || 'worker') + (unit.role ? ', ' + unit.role : '') + (unit.external ? ', external' : ''));
    put(row.place, unit.address || (unit.port == null ? '–' : '127.0.0.1:' + unit.port));
    put(row.restarts, count(unit.restarts));
    toggle(row.restarts, 'worse', unit.restarts > 0);
  }
}
const UNIT_SIGNS = {ready: '✓', degraded: '!', starting: '…', failed: '✕', 'backing-off': '…', stopped: '‖', draining: '↓', completed: '✓'};
function unitRow(unit, name) {
  const row = {sign: el('i'), word: el('span'), since: el('span', 'muted'), why: el('span', 'why'), kind: el('td'), place: el('td'), restarts: el('td', 'n')};
  const about = el('button', 'name', name), head = el('th', '', about);
  about.type = 'button';
  about.title = 'Decisions about ' + unit.service;
  about.onclick = () => choose(unit.service);
  head.scope = 'row';
  row.sign.setAttribute('aria-hidden', 'true');
  row.state = el('span', 'state', row.sign, row.word);
  row.node = el('tr', '', head, row.kind, el('td', '', row.state, ' ', row.since, row.why), row.place, row.restarts);
  return row;
}
