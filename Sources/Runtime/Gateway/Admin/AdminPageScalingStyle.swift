/// The style of the timelines: a label beside each plot, or above it where the page is narrow. Lines differ in their dashes too, not in
/// colour alone.
extension AdminPage {
    static let scalingStyle = #"""
        #scaling>h2{margin-top:1.2rem}
        #scaling h3{margin:0;font-size:1.05rem;overflow-wrap:anywhere}
        #scaling .card{margin-top:.5rem}
        #scaling .card>.head{flex-wrap:nowrap;align-items:flex-start}#scaling .card>.head>.head{justify-content:flex-start}
        .standing{margin-top:.4rem}
        .legend{display:flex;flex-wrap:wrap;gap:.1rem 1.1rem;margin:.6rem 0 .1rem;font-size:.82rem;color:var(--muted)}
        .legend span{display:flex;align-items:center;gap:.4rem}
        .legend i{width:1.5rem;height:0;border-top:2px solid var(--accent)}
        .legend i.area{height:.7rem;border:0;background:var(--fill)}
        .legend i.band{height:.7rem;background:var(--band);border:1px dashed var(--edge);border-width:1px 0}
        .legend i.raw{border-top:2px dotted var(--warn)}.legend i.target{border-top:2px dashed var(--muted)}
        .readout{min-height:1.45em;font-size:.9rem}
        .lanes{--label:8.5rem;--gutter:1.7rem;position:relative;margin-top:.3rem}
        .lane{display:grid;grid-template-columns:var(--label) 1fr;align-items:center;margin-bottom:.35rem}
        .about{display:flex;flex-wrap:wrap;gap:0 .5rem;align-items:baseline;font-size:.85rem;color:var(--muted);min-width:0}
        .about span{overflow-wrap:anywhere}.about b{color:var(--text)}.about small{width:100%}
        .plot,.rail,.times{position:relative;margin-left:var(--gutter)}
        .plot{height:2.8rem;border-bottom:1px solid var(--line)}.plot.tall{height:9rem}
        .plot svg{display:block;width:100%;height:100%}
        .plot path{fill:none;stroke:var(--accent);stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
        .plot:not(.tall) path.line{stroke-width:1.5}
        .plot path.area{fill:var(--fill);stroke:none}
        .plot path.band{fill:var(--band);stroke:none}
        .plot path.edge{stroke:var(--edge);stroke-width:1;stroke-dasharray:4 4}
        .plot path.ticks{stroke:var(--line);stroke-width:1}
        .plot path.raw{stroke:var(--warn);stroke-dasharray:.1 4}
        .plot path.target{stroke:var(--muted);stroke-width:1;stroke-dasharray:6 4}
        .tick{position:absolute;right:calc(100% + .35rem);transform:translateY(-50%);line-height:1}
        .cursor{position:absolute;top:0;bottom:0;width:1px;background:var(--text);pointer-events:none}
        .rail{height:1.6rem}
        .mark{position:absolute;top:0;transform:translateX(-50%);min-height:0;height:1.5rem;min-width:1.5rem;padding:0 .2rem;line-height:1;font-size:.72rem;border-radius:.75rem;
         color:var(--accent);z-index:1}
        .mark[aria-expanded=true]{background:var(--accent);color:var(--card);border-color:var(--accent)}
        .times{height:1.2rem;margin-left:calc(var(--label) + var(--gutter))}
        .times small{position:absolute;transform:translateX(-50%)}
        .scrub{position:absolute;top:0;bottom:0;right:0;left:calc(var(--label) + var(--gutter));cursor:crosshair;touch-action:pan-y}
        .told{list-style:none}.told li{display:grid;grid-template-columns:4.8rem 1fr;gap:.6rem;padding:.35rem 0;border-top:1px solid var(--line);overflow-wrap:anywhere}
        .told time{color:var(--muted)}.told small{display:block}
        .stale #scaled{opacity:.45}
        @media (max-width:760px){
         .lanes{--label:0rem}.lane{grid-template-columns:1fr}.about small{width:auto}.scrub{left:0}.readout{min-height:4.35em}
         .told li{grid-template-columns:1fr;gap:0}
        }
        """#
}
