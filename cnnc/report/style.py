"""The look of report.html."""

STYLE = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--panel); color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 2px; letter-spacing: -.01em; } h2 { font-size: 19px; margin: 36px 0 10px; }
.sub, .note { color: var(--soft); } .note { font-size: 13.5px; max-width: 78ch; }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 16px; }
.tiles { display: grid; gap: 12px; margin-top: 20px;
  grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); }
.tiles .card { padding: 12px 16px; } .tiles b { display: block; font-size: 22px; font-weight: 650; }
.tiles span { color: var(--soft); font-size: 13px; }
.pair { display: grid; gap: 16px;
  grid-template-columns: repeat(auto-fit, minmax(min(430px, 100%), 1fr)); }
svg.figure { width: 100%; height: auto; display: block; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; width: 100%; }
th { text-align: left; color: var(--soft); font-weight: 500; }
th, td { padding: 4px 12px 4px 0; vertical-align: top; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; } tr:last-child td { border-bottom: 0; }
code, pre { font: 12.5px/1.55 ui-monospace, "SFMono-Regular", Menlo, "DejaVu Sans Mono", monospace; }
.scroll { overflow-x: auto; }
.graphs { min-width: 1120px; } .graphs svg { height: auto; }
.graphs details > summary { list-style: none; cursor: pointer; }
summary::-webkit-details-marker { display: none; }
.graphs summary:hover { background: color-mix(in srgb, var(--ink) 4%, transparent); }
.graphs details.group > summary { position: relative; }
.graphs details.group > summary .name { display: none; }
.graphs details.group[open] > summary > .folded { display: none; }
.graphs details.group:not([open]) > summary > .band { display: none; }
.graphs details.group[open] > summary .name { display: block; position: absolute; right: 8px;
  top: 2px; font-size: 12px; color: var(--soft); }
.graphs details.group[open] { border-radius: 8px;
  background: color-mix(in srgb, var(--ink) 3%, transparent); }
.nodes { margin: 0 0 8px 24px; padding: 8px 14px; border-left: 3px solid var(--line); overflow-x: auto; }
.nodes pre { margin: 0; } .nodes i { color: var(--soft); font-style: normal; }
details.more > summary { cursor: pointer; color: var(--soft); margin: 8px 0; }
"""
