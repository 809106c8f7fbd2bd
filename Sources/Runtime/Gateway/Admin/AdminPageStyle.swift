/// The page's style, for light and dark, wide and narrow screens: below 760 px a replica is a card instead of a line.
extension AdminPage {
    static let style = #"""
        :root{color-scheme:light dark;--page:#f6f7f8;--card:#fff;--text:#1d2125;--muted:#59626d;--line:#dfe2e6;--accent:#2a66c4;--fill:#2a66c422;
         --ok:#1a7a35;--bad:#b8232a;--warn:#8a5700;--band:#59626d14;--edge:#59626d80}
        @media (prefers-color-scheme:dark){:root{--page:#13161a;--card:#1a1e23;--text:#e3e6ea;--muted:#9ba5b1;--line:#2d333b;--accent:#79a9f4;--fill:#79a9f42b;
         --ok:#5cc878;--bad:#ff8078;--warn:#e3ad53;--band:#9ba5b114;--edge:#9ba5b180}}
        *{box-sizing:border-box}
        [hidden]{display:none!important}
        body{font:15px/1.45 system-ui,sans-serif;max-width:1240px;margin:0 auto;padding:1.2rem 1rem 2rem;background:var(--page);color:var(--text);
         font-variant-numeric:tabular-nums}
        h1,h2,h3,p,dl,dd,ol{margin:0;padding:0}
        h1{font-size:1.25rem}h2{font-size:1.05rem;overflow-wrap:anywhere}h3{font-size:.95rem;margin:.9rem 0 .2rem}
        a{color:var(--accent)}
        .muted,small{color:var(--muted)}small{font-size:.8rem}
        .unseen,.skip:not(:focus){position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
        :focus-visible{outline:2px solid var(--accent);outline-offset:2px}
        h2:focus{outline:none}
        button,input,select{font:inherit;color:inherit;background:var(--card);border:1px solid var(--line);border-radius:.4rem;padding:.25rem .7rem;min-height:2rem}
        button{cursor:pointer}button:hover{border-color:var(--accent)}
        button[aria-pressed=true]{border-color:var(--accent);color:var(--accent)}
        .bar-of-tools label{white-space:nowrap}
        button.name{border:0;background:none;padding:0;min-height:0;text-align:left;color:var(--accent);overflow-wrap:anywhere}button.name:hover{text-decoration:underline}
        header{display:flex;flex-wrap:wrap;gap:.2rem 1rem;align-items:baseline;min-height:2.4rem}
        header button{margin-left:auto}
        #status{color:var(--muted)}#status.bad{color:var(--bad);font-weight:600}
        .stale .tiles,.stale #routes{opacity:.45}
        .card,.tiles>div,#found:not(:empty){background:var(--card);border:1px solid var(--line);border-radius:.6rem}
        .tiles{display:grid;grid-template-columns:repeat(8,1fr);gap:.6rem;margin:.8rem 0}
        .tiles>div{padding:.5rem .8rem;display:flex;flex-direction:column-reverse;justify-content:flex-end;min-width:0}
        .tiles dt{color:var(--muted);font-size:.82rem}.tiles dd{font-size:1.25rem;font-weight:600;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
        .bar-of-tools,.tools{display:flex;flex-wrap:wrap;gap:.4rem .6rem;align-items:center}
        .bar-of-tools{margin:.6rem 0}.bar-of-tools input[type=search]{flex:1;min-width:10rem;max-width:30rem}
        .check{display:flex;align-items:center;gap:.4rem}.check input{min-height:0}
        .head{display:flex;flex-wrap:wrap;gap:.3rem 1rem;align-items:center;justify-content:space-between}
        .card{padding:.9rem 1rem;margin:.9rem 0}
        .chips{display:flex;flex-wrap:wrap;gap:.2rem 1rem;margin-top:.15rem;color:var(--muted);font-size:.88rem}
        .live{display:grid;grid-template-columns:7.5rem 1fr 19rem;gap:1rem;align-items:center;margin:.5rem 0 .6rem}
        .live b{display:block;font-size:1.45rem;line-height:1.2}
        .spark{position:relative;height:3rem;border-bottom:1px solid var(--line)}
        .spark svg{display:block;width:100%;height:100%}
        .spark small{position:absolute;top:0;left:0;background:var(--card);padding-right:.3rem;opacity:.85}
        .spark path{vector-effect:non-scaling-stroke;fill:none;stroke:var(--accent);stroke-width:1.5;stroke-linejoin:round}.spark path.area{fill:var(--fill);stroke:none}
        .three{display:grid;grid-template-columns:repeat(3,1fr);gap:.5rem}.three dd{font-weight:600}
        .three dt,.facts dt{color:var(--muted);font-size:.8rem}
        .facts{display:grid;grid-template-columns:repeat(10,1fr);gap:.4rem .6rem;padding:.5rem 0;border-top:1px solid var(--line)}
        .facts small{display:block;white-space:nowrap}
        .facts .zero dd{color:var(--muted)}
        .table{overflow:auto;margin:.2rem 0 0}.table.long{max-height:34rem;border-bottom:1px solid var(--line)}
        table{border-collapse:collapse;width:100%}
        .replicas{table-layout:fixed;min-width:58rem}
        th,td{text-align:left;vertical-align:top;padding:.35rem .7rem .35rem 0;border-top:1px solid var(--line);font-weight:400;overflow-wrap:anywhere}
        thead th{color:var(--muted);font-size:.8rem;border-top:0}.long thead th{position:sticky;top:0;background:var(--card);z-index:1}
        .n{text-align:right}.replicas .n{white-space:nowrap}
        .replicas tr>:nth-child(1){width:17%}.replicas tr>:nth-child(2){width:27%}.replicas tr>:nth-child(3){width:13%}
        .replicas tr>:last-child{padding-right:0}
        .more{display:block;color:inherit}.more:empty{display:none}
        .state{font-weight:600;white-space:nowrap}.state i{font-style:normal;display:inline-block;width:1.2em}
        .ready,.closed{color:var(--ok)}.down,.ejected,.open,.worse{color:var(--bad)}.draining,.disabled,.half_open,.full{color:var(--warn)}
        .why{display:-webkit-box;-webkit-box-orient:vertical;-webkit-line-clamp:2;overflow:hidden;color:var(--muted);font-size:.83rem}
        .badge{border:1px solid var(--line);border-radius:1rem;padding:0 .5rem;font-size:.78rem;color:var(--muted);white-space:nowrap}
        .share{display:flex;align-items:center;gap:.5rem}.share span:first-child{flex:1;height:.5rem;border-radius:.25rem;background:var(--fill);overflow:hidden}
        .share i{display:block;height:100%;width:0;background:var(--accent);border-radius:.25rem}.share span:last-child{width:3.1rem;text-align:right}
        #found:not(:empty){padding:.8rem 1rem;margin:.6rem 0}
        .sides{display:flex;flex-wrap:wrap;gap:0 3rem;margin-bottom:.6rem}.sides>div{flex:1 1 20rem;min-width:0;max-width:34rem}.tight td,.tight thead th{white-space:nowrap}.tight td,.tight th{padding-right:.5rem}
        #found p+p{margin-top:.4rem}
        #why{list-style:none;margin-top:.5rem}
        #why li{display:grid;grid-template-columns:4.8rem 5.2rem 1fr;gap:.1rem .6rem;padding:.35rem 0;border-top:1px solid var(--line);overflow-wrap:anywhere}
        #why small{display:block}#why time{color:var(--muted)}#why .badge{justify-self:start;align-self:start}
        footer{margin-top:1.4rem;font-size:.85rem}footer a{margin-right:.4rem}
        @media (max-width:1000px){.tiles{grid-template-columns:repeat(4,1fr)}.facts{grid-template-columns:repeat(5,1fr)}.live{grid-template-columns:7rem 1fr}
         .live .three{grid-column:1/-1}}
        @media (max-width:760px){
         .replicas{min-width:0;display:block}.replicas thead{position:absolute;clip-path:inset(50%);width:1px;height:1px;overflow:hidden}
         .replicas tbody{display:block}
         .replicas tr{display:grid;grid-template-columns:repeat(4,1fr);gap:.25rem .6rem;padding:.6rem 0;border-top:1px solid var(--line)}
         .replicas tr>*{display:block;width:auto!important;padding:0;border:0;text-align:left}
         .replicas tr>:nth-child(1),.replicas tr>:nth-child(2),.replicas tr>:nth-child(3){grid-column:1/-1}
         .share{max-width:none}.replicas tr>:nth-child(n+4){font-size:.92rem}
         .replicas .n::before{content:attr(data-label);display:block;color:var(--muted);font-size:.76rem}
         .why{-webkit-line-clamp:4}
         .facts{grid-template-columns:repeat(4,1fr)}.facts small{font-size:.74rem}
         #why li{grid-template-columns:auto 1fr}#why li>div{grid-column:1/-1}
        }
        @media (max-width:480px){.tiles{grid-template-columns:repeat(2,1fr)}.live{grid-template-columns:5.4rem 1fr;gap:.6rem}.tiles>div{padding:.35rem .7rem}
         .bar-of-tools input[type=search]{min-width:0;flex:1 1 9rem}}
        @media (prefers-reduced-motion:no-preference){.share i{transition:width .4s}}
        """#
}
