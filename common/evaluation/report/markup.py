"""Markup that the pages share. A Python module, because Flower's app bundles carry no other kind of text file."""

# ruff: noqa: E501
HEAD = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
"""

STYLE = """\
<style>
:root { --ink: #1c2430; --muted: #5d6672; --rule: #d5d9de; --accent: #1f4e79; --alarm: #a11d1d; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); font: 16px/1.55 "Source Serif 4", Charter, Georgia, "Liberation Serif", serif; }
main { max-width: 46rem; margin: 0 auto; padding: 3rem 1.5rem 5rem; }
header { border-bottom: 1px solid var(--rule); padding-bottom: 1.2rem; margin-bottom: 2rem; }
.eyebrow, th, td, .key, figcaption, .tag, dt, dd, svg text { font-family: "Inter", "Helvetica Neue", Arial, "Liberation Sans", sans-serif; }
.eyebrow { font-size: .75rem; letter-spacing: .08em; text-transform: uppercase; color: var(--muted); margin: 0 0 .4rem; }
h1 { font-size: 2rem; line-height: 1.2; font-weight: 600; margin: 0; }
h2 { font-size: 1.35rem; font-weight: 600; margin: 3rem 0 .8rem; }
h3 { font-size: 1rem; font-weight: 600; margin: 1.8rem 0 .5rem; }
p { margin: .6rem 0; }
.muted { color: var(--muted); }
.claim { font-size: 1.25rem; line-height: 1.5; border-left: 3px solid var(--accent); padding-left: 1.1rem; margin: 1.2rem 0 1.8rem; }
.banner { border: 2px solid var(--alarm); background: #fdf1f1; color: var(--alarm); padding: 1rem 1.2rem; margin: 0 0 2rem; }
.banner strong { display: block; font-size: 1.25rem; }
.banner + h2, header + h2 { margin-top: 0; }
.void .claim { border-color: var(--alarm); color: var(--alarm); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; line-height: 1.4; }
th { text-align: left; font-weight: 600; color: var(--muted); border-bottom: 1px solid var(--ink); padding: .35rem .9rem .35rem 0; vertical-align: bottom; }
td { border-bottom: 1px solid var(--rule); padding: .45rem .9rem .45rem 0; vertical-align: top; }
th:last-child, td:last-child { padding-right: 0; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.wide td { font-size: .78rem; }
.key { overflow-wrap: anywhere; }
.scroll .key { overflow-wrap: break-word; }
.who { white-space: nowrap; font-weight: 600; }
.no { color: var(--alarm); font-weight: 600; }
.yes { color: #2f6b46; }
ul { padding-left: 1.1rem; margin: .5rem 0; }
li { margin: .25rem 0; }
figure { margin: 1.4rem 0; break-inside: avoid; }
figure svg { width: 100%; height: auto; display: block; }
figcaption { font-size: .8rem; color: var(--muted); margin-top: .3rem; }
.lists { columns: 2; column-gap: 2.2rem; }
.list { break-inside: avoid; margin: 0 0 1.2rem; }
.list b { display: block; border-bottom: 1px solid var(--ink); padding-bottom: .15rem; overflow-wrap: anywhere; }
.list td { padding-top: .18rem; padding-bottom: .18rem; }
.engineer { border-top: 1px solid var(--ink); margin-top: 4rem; padding-top: .1rem; }
.facts td:first-child { color: var(--muted); width: 45%; overflow-wrap: anywhere; }
.facts td:last-child { overflow-wrap: anywhere; }
pre { font: .78rem/1.45 "JetBrains Mono", Menlo, Consolas, "Liberation Mono", monospace; background: #f6f7f8; padding: .9rem 1rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 38rem) { .lists { columns: 1; } h1 { font-size: 1.6rem; } }
@media print {
  @page { margin: 18mm 16mm; }
  body { font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  h2, h3 { break-after: avoid; }
  tr { break-inside: avoid; }
  .scroll { overflow: visible; }
  .engineer { break-before: page; border-top: 0; margin-top: 0; }
}
</style>
"""

# What each accountant says; needs ``observers`` and ``first_accountant``.
ACCOUNTANTS = """\
<h3>Accountants</h3>
<div class="scroll"><table>
<tr><th>Against</th><th class="n">epsilon ({{ first_accountant }})</th><th>second opinion</th><th class="n">lower</th><th class="n">estimate</th><th class="n">upper</th></tr>
{% for o in observers %}{% set second = o.second_opinion or {} %}
<tr><td>{{ o.who }}</td><td class="n">{{ o.epsilon|num }}</td><td>{{ second.accountant|default(o.second_opinion_reason|default("none"))|num }}</td><td class="n">{{ second.lower|default(none)|num }}</td><td class="n">{{ second.estimate|default(none)|num }}</td><td class="n">{{ second.upper|default(none)|num }}</td></tr>
{% endfor %}</table></div>
"""
