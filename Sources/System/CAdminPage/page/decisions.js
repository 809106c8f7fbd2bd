// MARK: decisions

let subject = '', shown = '';
function choose(name) {
  subject = name;
  $('all').hidden = !name;
  put($('all'), name ? 'Only ' + name + ' ✕' : '');
  attribute($('all'), 'aria-label', 'Only decisions about ' + name + '; show those about everything');
  shown = '';
  askWhy().catch(() => {});
  if (name) { $('decisions').focus({preventScroll: true}); $('decisions').scrollIntoView({block: 'start'}); }
}
$('all').onclick = () => { choose(''); $('kind').focus(); };
$('kind').onchange = () => { shown = ''; askWhy().catch(() => {}); };
async function askWhy() {
  const kind = $('kind').value, about = subject;
  const query = new URLSearchParams({last: '200'});
  if (about) query.set('subject', about);
  if (kind === 'changes') query.set('without', 'route'); else if (kind) query.set('kind', kind);
  const list = await ask('/api/why?' + query);
  if (about !== subject || kind !== $('kind').value) return;
  showWhy(list.filter(d => kind === 'changes' ? d.kind !== 'route' : !kind || d.kind === kind).slice(-100).reverse());
}
function showWhy(list) {
  const print = list.length + ' ' + (list.length ? list[0].at + list.at(-1).at + list[0].sentence : '');
  if (print === shown) return;
  shown = print;
  put($('none'), subject ? 'None about ' + subject + ' of this kind.' : 'None of this kind yet.');
  $('none').hidden = list.length > 0;
  $('why').replaceChildren(...list.map(d => {
    const when = el('time', '', new Date(d.at).toLocaleTimeString('en-GB'));
    when.dateTime = d.at;
    when.title = d.at;
    return el('li', '', when, el('span', 'badge', d.kind), el('div', '', d.sentence, ...(d.flip ? [el('small', '', 'Otherwise if: ' + d.flip)] : [])));
  }));
}

// MARK: one request

function rows(caption, heads, list) {
  const head = el('tr', '', ...heads.map(text => { const cell = el('th', '', text); cell.scope = 'col'; return cell; }));
  return el('table', '', el('caption', 'unseen', caption), el('thead', '', head), el('tbody', '', ...list.map(([first, ...rest]) => {
    const cell = el('th', '', first);
    cell.scope = 'row';
    return el('tr', '', cell, ...rest.map(text => el('td', '', text)));
  })));
}
async function explain(id) {
  $('id').value = id;
  let inside;
  try {
    const [found] = await ask('/api/requests/' + encodeURIComponent(id));
    const candidates = [], inputs = [];
    for (const [name, value] of Object.entries(found.inputs)) {
      const seen = /^(\d+) under way,? ?(.*)$/.exec(value);
      if (seen) candidates.push([name, seen[1], seen[2], name === found.subject ? '✓ yes' : '']); else inputs.push([name.replaceAll('_', ' '), value]);
    }
    inside = [el('p', '', el('strong', '', found.sentence)), el('p', 'muted', new Date(found.at).toLocaleString('en-GB') + ', ' + found.outcome)];
    const sides = el('div', 'sides', el('div', '', el('h3', '', 'Inputs'), rows('Inputs', ['Input', 'Value'], inputs)));
    if (candidates.length) {
      sides.prepend(el('div', 'tight', el('h3', '', 'Candidates'), rows('Candidates', ['Replica', 'Under way', 'State', 'Chosen'], candidates)));
    }
    inside.push(sides);
    if (found.flip) inside.push(el('p', 'muted', 'Otherwise if: ' + found.flip));
  } catch (error) { inside = [el('p', '', error.told || 'The gateway does not answer.')]; }
  const close = el('button', '', 'Close');
  close.type = 'button';
  close.onclick = () => { $('found').replaceChildren(); history.replaceState(null, '', location.pathname); $('id').focus(); };
  $('found').replaceChildren(...inside, el('p', '', close));
}
$('search').onsubmit = event => {
  event.preventDefault();
  const id = $('id').value.trim();
  if (!id) return;
  history.replaceState(null, '', '#request=' + encodeURIComponent(id));
  explain(id);
};
// A link may name a request: /#request=ID
function followLink() {
  const found = /^#request=(.+)$/.exec(location.hash);
  if (found) try { explain(decodeURIComponent(found[1])); } catch {}
}
addEventListener('hashchange', followLink);

// MARK: turns

// The JSON of an answer. What the gateway says of an error is in `told`.
async function ask(path) {
  const answer = await fetch(path, {cache: 'no-store', signal: AbortSignal.timeout(5000)});
  const json = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(path), {status: answer.status, told: json.error?.message || 'The gateway answered ' + answer.status + '.'});
  return json;
}
let isPaused = false, goneSince = null, newUntil = 0;
function tell(text, isBad) {
  put($('status'), text);
  toggle($('status'), 'bad', isBad);
  toggle(document.body, 'stale', isBad);
}
async function turn() {
  const began = performance.now();
  if (!isPaused) {
    try {
      const state = await ask('/api/state');
      if (!isPaused) {
        if (show(state)) { newUntil = began + 60000; scalingDue = unitsDue = 0; }
        goneSince = null;
        tell(began < newUntil ? 'It began anew a moment ago; its counts with it.' : '', false);
        await askWhy();
        await askUnits(began);
        await askScaling(began);
      }
    } catch (error) {
      goneSince = goneSince || new Date();
      tell('No answer since ' + goneSince.toLocaleTimeString('en-GB') + '. Still asking.', true);
      if (!(error instanceof TypeError) && !(error instanceof DOMException) && !(error instanceof SyntaxError)) console.error(error);
    }
  }
  setTimeout(turn, Math.max(200, 1000 - (performance.now() - began)));
}
$('pause').onclick = () => {
  isPaused = !isPaused;
  attribute($('pause'), 'aria-pressed', String(isPaused));
  if (isPaused) tell('Paused.', false); else put($('status'), '');
};
followLink();
turn();
