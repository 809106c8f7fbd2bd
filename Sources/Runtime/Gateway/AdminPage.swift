/// The admin port's page: plain HTML that reads `/api/state` and `/api/why` every second. No code from elsewhere is loaded, and what
/// comes from outside is written as text, never as markup.
enum AdminPage {
    static let html = """
        <!doctype html>
        <html lang="en"><head><meta charset="utf-8"><title>Muster gateway</title>
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <style>
        :root{color-scheme:light dark;--line:#8883;--ok:#1a7f37;--bad:#c62828;--warn:#b26a00}
        body{font:15px/1.45 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem}
        h1{font-size:1.3rem;margin:0}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}
        .sub{opacity:.7;margin:.2rem 0 1rem}
        .tiles{display:flex;gap:.8rem;flex-wrap:wrap}.tile{border:1px solid var(--line);border-radius:.5rem;padding:.5rem .9rem;min-width:7rem}
        .tile b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}.tile span{opacity:.7;font-size:.85rem}
        table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .7rem .3rem 0;border-bottom:1px solid var(--line)}
        th{font-weight:600;opacity:.75;font-size:.85rem}td:nth-child(6){width:22%}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
        .ready{color:var(--ok)}.down,.ejected{color:var(--bad)}.draining{color:var(--warn)}
        .bar{background:#4a7bd0;height:.55rem;border-radius:.2rem;min-width:1px}
        ul{padding-left:1.1rem;margin:.3rem 0}li{margin:.15rem 0}time{opacity:.6;margin-right:.5rem;font-variant-numeric:tabular-nums}
        #gone{color:var(--bad)}
        </style></head><body>
        <h1>Muster gateway</h1><p class="sub"><span id="listen"></span> <span id="gone"></span></p>
        <div class="tiles" id="tiles"></div><div id="routes"></div>
        <h2>Decisions</h2><ul id="why"><li>none yet</li></ul>
        <p class="sub">Also here: <a href="/metrics">/metrics</a> <a href="/api/state">/api/state</a> <a href="/api/why">/api/why</a></p>
        <script>
        const $=id=>document.getElementById(id);let last=null;
        const el=(tag,text,cls)=>{const e=document.createElement(tag);if(text!=null)e.textContent=text;if(cls)e.className=cls;return e};
        function tile(name,value){const d=el('div',null,'tile');d.append(el('b',value),el('span',name));return d}
        function row(cells,tag){const r=el('tr');cells.forEach(c=>{const e=el(tag,c.t,c.c);if(c.e)e.append(c.e);r.append(e)});return r}
        const ms=v=>v==null?'–':v.toFixed(1)+' ms';
        function show(s){
          $('listen').textContent='listens on '+s.listen+', '+s.connections+' connections';
          const total=s.routes.reduce((a,r)=>a+r.requests,0),now=Date.parse(s.at);
          const rate=last?Math.max(0,(total-last.total)*1000/(now-last.now)):0;last={total,now};
          const bad=s.routes.reduce((a,r)=>a+r.status_5xx,0),retries=s.routes.reduce((a,r)=>a+r.retries,0);
          $('tiles').replaceChildren(tile('requests/s',rate.toFixed(0)),tile('requests',total),tile('5xx',bad),tile('retries',retries));
          $('routes').replaceChildren(...s.routes.map(r=>{
            const d=el('div');d.append(el('h2',r.path+'  ('+r.balance+')'));
            d.append(el('p','p50 '+ms(r.p50_ms)+'   p95 '+ms(r.p95_ms)+'   p99 '+ms(r.p99_ms),'sub'));
            const t=el('table'),most=Math.max(1,...r.replicas.map(x=>x.requests));
            t.append(row([{t:'replica'},{t:'address'},{t:'state'},{t:'under way',c:'n'},{t:'requests',c:'n'},{t:''},{t:'failures',c:'n'}],'th'));
            r.replicas.forEach(x=>{const b=el('div',null,'bar');b.style.width=(100*x.requests/most)+'%';
              t.append(row([{t:x.name},{t:x.address},{t:x.state,c:x.state},{t:x.in_flight,c:'n'},{t:x.requests,c:'n'},{e:b},{t:x.failures,c:'n'}],'td'))});
            d.append(t);return d}));
        }
        function why(list){if(!list.length)return;
          $('why').replaceChildren(...list.slice(-15).reverse().map(d=>{const l=el('li');l.append(el('time',d.at.slice(11,19)),d.sentence);return l}))}
        async function turn(){
          try{show(await(await fetch('/api/state')).json());why(await(await fetch('/api/why')).json());$('gone').textContent=''}
          catch(e){$('gone').textContent='the gateway does not answer'}
          setTimeout(turn,1000)}
        turn();
        </script></body></html>
        """
}
