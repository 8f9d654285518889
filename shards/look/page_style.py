"""The look of every page: one column of sections, cards and tables; light or dark as the reader's system is."""

STYLE = """
:root {
  color-scheme: light dark; --ground: #fbfbfa; --card: #fff; --ink: #1b1d22; --soft: #636975;
  --line: #e4e4e0; --accent: #2f5fd0; --code: #f4f4f1;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #131417; --card: #1b1d21; --ink: #e9e9e6; --soft: #9ba1ad; --line: #2d3036; --accent: #8fb0ff;
    --code: #17191c;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 56px 24px 72px; }
h1 { font-size: clamp(1.9rem, 4.5vw, 2.9rem); line-height: 1.12; letter-spacing: -.022em; margin: 0 0 .4em; }
h2 { font-size: 1.4rem; letter-spacing: -.012em; margin: 0 0 .3em; }
h3 { font-size: 1rem; margin: 1.8em 0 .5em; }
p { margin: 0 0 1em; max-width: 70ch; }
section { margin-top: 60px; }
.lead { font-size: 1.13rem; color: var(--soft); }
.over {
  color: var(--accent); font-weight: 650; font-size: .82rem; letter-spacing: .07em;
  text-transform: uppercase; margin: 0 0 .9em;
}
.soft { color: var(--soft); }
code, pre, .ids { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { font-size: .88em; overflow-wrap: anywhere; }
pre {
  background: var(--code); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px;
  margin: 0 0 14px; overflow-x: auto; font-size: .82rem; line-height: 1.55; white-space: pre;
}
pre b { color: var(--accent); font-weight: 600; }
.tiles {
  display: flex; flex-wrap: wrap; gap: 1px; margin: 32px 0 0;
  padding: 0; background: var(--line); border: 1px solid var(--line); border-radius: 14px; overflow: hidden;
}
.tiles div { flex: 1 1 180px; background: var(--card); padding: 16px 18px; }
.tiles dt { color: var(--soft); font-size: .82rem; }
.tiles dd {
  margin: 0; font-size: 1.42rem; font-weight: 620; letter-spacing: -.015em;
  font-variant-numeric: tabular-nums;
}
.tiles small {
  display: block; color: var(--soft); font-size: .78rem; font-weight: 400; letter-spacing: 0;
  line-height: 1.4;
}
.cards {
  display: grid; gap: 20px; margin-top: 24px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 190px), 1fr));
}
.cards.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 250px), 1fr)); }
figure {
  margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 14px; overflow: hidden;
}
figcaption { padding: 6px 14px 13px; font-size: .8rem; line-height: 1.5; overflow-wrap: anywhere; }
figcaption b { font-weight: 620; font-size: .95rem; }
.shot { position: relative; }
.shot img { display: block; width: 100%; height: auto; image-rendering: auto; }
.shot.two::after {
  content: ""; position: absolute; inset: 0 auto 0 50%; width: 6px; margin-left: -3px;
  background: var(--card);
}
.sides {
  display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; color: var(--soft); font-size: .74rem;
  padding: 7px 0 0;
}
.sides:last-child { padding-bottom: 9px; }
.sides span { padding: 0 14px; } .sides span + span { padding-left: 8px; }
table { border-collapse: collapse; font-size: .9rem; width: 100%; }
.scroll {
  overflow-x: auto; border: 1px solid var(--line); border-radius: 12px; background: var(--card);
  margin: 0 0 18px;
}
th, td { text-align: left; padding: 8px 14px; border-top: 1px solid var(--line); vertical-align: top; }
thead th { border-top: 0; color: var(--soft); font-weight: 500; font-size: .82rem; white-space: nowrap; }
table.facts td:first-child { color: var(--soft); white-space: nowrap; width: 1%; }
table.facts tr:first-child td { border-top: 0; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.w { white-space: nowrap; }
td bdi { overflow-wrap: anywhere; }
.columns {
  display: grid; gap: 0 28px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr));
  align-items: start;
}
.trio {
  display: grid; gap: 20px; margin-top: 24px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 250px), 1fr));
}
.ids { display: grid; aspect-ratio: 1; font-variant-numeric: tabular-nums; }
.ids span { display: grid; place-items: center; overflow: hidden; }
footer {
  margin-top: 72px; padding-top: 20px; border-top: 1px solid var(--line); color: var(--soft);
  font-size: .84rem;
}
@media (max-width: 560px) {
  main { padding: 32px 16px 48px; }
  section { margin-top: 44px; }
  .tiles dd { font-size: 1.2rem; }
}
@media print { body { background: #fff; } figure, pre, .scroll { break-inside: avoid; } }
"""
