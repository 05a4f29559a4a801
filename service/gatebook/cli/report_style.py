"""How a report looks: light, dark, on paper. Constant text; nothing of a policy set ever comes in here."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root { --ink:#1b2330; --soft:#5b6678; --line:#d9dfe8; --page:#f6f8fb; --card:#fff; --gain:#c0392f; --gain-soft:#fdecea;
  --loss:#1f7a4d; --loss-soft:#e7f5ed; --own:#a86a12; --own-soft:#fcf3e1; --accent:#2f5bd0; --accent-soft:#eaf0fe; }
@media (prefers-color-scheme: dark) { :root { --ink:#e7ecf4; --soft:#9aa7bb; --line:#2d3747; --page:#11161f;
  --card:#19212d; --gain:#ff7b6f; --gain-soft:#3a1e1d; --loss:#59c792; --loss-soft:#16301f; --own:#e5ac4f;
  --own-soft:#352812; --accent:#86a8ff; --accent-soft:#1d2944; } }
* { box-sizing: border-box; }
body { margin:0; background:var(--page); color:var(--ink); line-height:1.5;
  font:15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width:1180px; margin:0 auto; padding:34px 26px 60px; }
h1 { font-size:27px; line-height:1.25; margin:0 0 6px; letter-spacing:-.015em; }
h2 { font-size:19px; margin:42px 0 14px; letter-spacing:-.01em; }
h3 { font-size:16px; margin:0 0 4px; overflow-wrap:anywhere; }
h1 code { font-size:inherit; } p { margin:6px 0; } .soft { color:var(--soft); }
code, .mono, svg .said, svg .place {
  font-family:ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { font-size:13px; overflow-wrap:anywhere; }
.verdict { border-radius:12px; padding:15px 20px; margin:20px 0; font-size:17px; font-weight:600; border:1px solid; }
.verdict.gain { background:var(--gain-soft); border-color:var(--gain); color:var(--gain); }
.verdict.none { background:var(--loss-soft); border-color:var(--loss); color:var(--loss); }
.numbers { display:grid; grid-template-columns:repeat(auto-fit,minmax(170px,1fr)); gap:13px; }
.number { background:var(--card); border:1px solid var(--line); border-radius:12px; padding:13px 17px; }
.number b { display:block; font-size:28px; line-height:1.2; font-variant-numeric:tabular-nums; }
.number.gain b { color:var(--gain); } .number.loss b { color:var(--loss); } .number.own b { color:var(--own); }
.card { background:var(--card); border:1px solid var(--line); border-radius:12px; padding:18px 20px; margin:14px 0;
  border-left:5px solid var(--line); }
.card.gain { border-left-color:var(--gain); } .card.loss { border-left-color:var(--loss); }
.card.own { border-left-color:var(--own); }
.chip { display:inline-block; border-radius:99px; padding:1px 10px; margin:2px 5px 2px 0; font-size:12.5px;
  background:var(--accent-soft); color:var(--accent); white-space:nowrap; }
.chip.gain { background:var(--gain-soft); color:var(--gain); }
.chip.loss { background:var(--loss-soft); color:var(--loss); }
.chip.own { background:var(--own-soft); color:var(--own); }
table { border-collapse:collapse; width:100%; font-size:14px; }
th, td { text-align:left; vertical-align:top; padding:6px 12px 6px 0;
  border-bottom:1px solid var(--line); overflow-wrap:break-word; }
th { color:var(--soft); font-weight:600; } td.n { font-variant-numeric:tabular-nums; }
tr:last-child > * { border-bottom:0; }
table.what { table-layout:fixed; min-width:760px; margin-top:8px; }
table.what th:nth-child(1) { width:21%; } table.what th:nth-child(2) { width:27%; }
table.what th:nth-child(3) { width:24%; } table.what th:nth-child(4) { width:13%; }
.picture { overflow-x:auto; margin:14px 0 4px; }
.matrix-card { background:var(--card); border:1px solid var(--line); border-radius:12px; padding:16px 18px; }
details { margin-top:9px; } summary { cursor:pointer; color:var(--accent); }
pre { background:var(--page); border:1px solid var(--line); border-radius:8px;
  padding:11px; overflow-x:auto; font-size:12.5px; }
footer { margin-top:46px; color:var(--soft); font-size:13px; border-top:1px solid var(--line); padding-top:14px; }
svg { max-width:100%; height:auto; } svg text { fill:var(--ink); font-size:13px; }
svg .label { text-anchor:end; font-weight:600; } svg .head { font-size:12.5px; fill:var(--soft); }
svg .count { text-anchor:middle; font-weight:650; font-variant-numeric:tabular-nums; }
svg .strong { fill:var(--card); } svg rect.none { fill:var(--line); fill-opacity:.28; }
svg rect.gain { fill:var(--gain); } svg rect.loss { fill:var(--loss); } svg rect.own { fill:var(--own); }
svg .box { fill:var(--card); stroke:var(--line); stroke-width:1.5; }
svg .box.subject { fill:var(--accent-soft); stroke:var(--accent); }
svg .box.dataset { fill:var(--own-soft); stroke:var(--own); }
svg .box.new { fill:var(--gain-soft); stroke:var(--gain); stroke-width:2.5; }
svg .box.gone { fill:var(--loss-soft); stroke:var(--loss); stroke-width:2.5; stroke-dasharray:7 4; }
svg .box.obstacle { stroke-dasharray:5 4; stroke:var(--soft); fill:none; }
svg .kind { font-size:11px; fill:var(--soft); letter-spacing:.04em; } svg .name { font-weight:700; font-size:14px; }
svg .said { font-size:12.2px; } svg .said.name { font-size:13.5px; } svg .place { font-size:11px; fill:var(--soft); }
svg .flag { font-size:11px; font-weight:700; text-anchor:end; } svg .flag.new { fill:var(--gain); }
svg .flag.gone { fill:var(--loss); }
svg .arrow { stroke:var(--soft); stroke-width:1.8; } svg .arrow.new { stroke:var(--gain); stroke-width:2.6; }
svg .arrow.gone { stroke:var(--loss); stroke-width:2.6; stroke-dasharray:6 4; } svg .tip { fill:var(--soft); }
svg .struck { text-decoration:line-through; fill:var(--soft); }
@media print { body { background:#fff; font-size:12px; } main { max-width:none; padding:0; }
  .card, .number, .matrix-card { break-inside:avoid; } .picture { overflow:visible; } svg { max-width:100%; }
  * { -webkit-print-color-adjust:exact; print-color-adjust:exact; } }
"""
