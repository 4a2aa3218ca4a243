"""The report's Jinja2 template. A Python module, because Flower's app bundles carry no other kind of text file."""

# ruff: noqa: E501
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ title }} · fedembed report</title>
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
</head>
<body>
<main{% if void %} class="void"{% endif %}>
<header>
<p class="eyebrow">fedembed release</p>
<h1>{{ title }}</h1>
</header>
{% if void %}
<div class="banner" role="alert"><strong>{% if claim.mode is defined and claim.mode == "none" %}This release protects nobody.{% else %}This certificate is void.{% endif %}</strong>
{{ (claim.void_reason|default("", true) or "no reason is stated")|sentence }}. Treat the tables as you would treat the data they were made from.</div>
{% endif %}
<h2>What is claimed</h2>
<p class="claim">{{ claim.sentence|default("No claim is stated.") }}</p>
{% if observers %}
<div class="scroll"><table>
<tr><th>Who looks</th><th>What they see</th><th class="n">epsilon</th><th>What that means</th></tr>
{% for o in observers %}
<tr><td class="who">{{ o.who }}</td><td>{{ o.sees }}</td>
{% if o.epsilon is none %}
<td class="n no">not protected</td><td>{{ (o.reason or "nothing is claimed")|sentence }}.</td>
{% else %}
<td class="n">{{ o.epsilon|risk }}</td><td>{% if o.caught is not none %}An attacker who accuses 1 in 100 wrongly finds at most {{ (100 * o.caught)|risk(1) }} % of those who are in the data.{% endif %}</td>
{% endif %}</tr>
{% endfor %}
</table></div>
{% endif %}
{% if claim.delta is defined and not void %}
<p class="muted">Protected is one {{ unit }}: {{ claim.adjacency }}. Delta, the probability that the claim leaves aside, is {{ claim.delta|num }}. A smaller epsilon protects better: at 0 an observer learns nothing about a single {{ unit }}, at 1 little, at 8 the guarantee is weak.</p>
{% endif %}
<h3>What is not covered</h3>
{% if void %}
<p>Everything: nothing in this release is protected against anybody.</p>
{% else %}
<ul>{% for item in claim.not_covered|default([]) %}<li>{{ item|sentence }}</li>{% else %}<li>The certificate does not say.</li>{% endfor %}</ul>
{% endif %}
{% if claim.public is defined and not void %}
<h3>What is public by design</h3>
<ul>{% for item in claim.public %}<li>{{ item|sentence }}</li>{% endfor %}</ul>
{% endif %}
<h3>Was it attacked?</h3>
<p>No audit was run: nobody tried to break this release.{% if not void %} The claim rests on mathematics and on the software being right.{% endif %}</p>

<h2>How good the embeddings are</h2>
{% if scores %}
{% if quality_plot %}<figure>{{ quality_plot|drawing }}<figcaption>Bars: this release, with 95 % intervals. Diamonds: the baseline that it must beat.</figcaption></figure>{% endif %}
<div class="scroll"><table>
<tr><th>Task</th><th>Metric</th><th class="n">Value</th><th class="n">95 % interval</th><th class="n">Baseline</th><th>Baseline is</th><th>Better?</th></tr>
{% for s in scores %}
<tr><td class="key">{{ s.task }}</td><td class="key">{{ s.metric }}</td><td class="n">{{ s.value|figure }}</td><td class="n">{{ s.ci_low|figure }} to {{ s.ci_high|figure }}</td><td class="n">{{ s.baseline_value|figure }}</td><td>{{ s.baseline_name or "–" }}</td>
<td>{% if s.beats_baseline is none %}not known{% elif s.beats_baseline %}<span class="yes">yes</span>{% else %}<span class="no">not shown</span>{% endif %}</td></tr>
{% endfor %}
</table></div>
{% else %}
<p>Not evaluated: the scenario names no quality task.</p>
{% endif %}

{% for table in tables %}
<h2>Table “{{ table.name }}”</h2>
<p class="muted">{{ table.rows|num }} rows of {{ table.dimensions|num }} numbers.</p>
{% if table.map %}
<figure>{{ table.map|drawing }}<figcaption>The first {{ table.mapped|num }} rows on the two directions in which they vary most. These hold {{ (100 * table.share)|num }} % of their variance: near on the map need not be near in the table.</figcaption></figure>
{% endif %}
{% if table.neighbors %}
<h3>Nearest neighbours, by cosine</h3>
<div class="lists">
{% for key, near in table.neighbors.items() %}
<div class="list"><b class="key">{{ key }}</b><table>{% for other, cosine in near %}<tr><td class="key">{{ other }}</td><td class="n">{{ cosine|figure }}</td></tr>{% endfor %}</table></div>
{% endfor %}
</div>
{% endif %}
{% endfor %}
{% if encoder %}
<h2>Encoder</h2>
<div class="scroll"><table><tr><th>Parameter</th><th class="n">Shape</th></tr>{% for name, shape in encoder.items() %}<tr><td class="key">{{ name }}</td><td class="n">{{ shape|join(" × ") }}</td></tr>{% endfor %}</table></div>
{% endif %}

{% if spend_plot or history_plots %}
<h2>How it was trained</h2>
{% if spend_plot %}<figure>{{ spend_plot|drawing }}<figcaption>Epsilon spent up to each round, by the accountant of the certificate.</figcaption></figure>{% endif %}
{% for caption, plot in history_plots %}<figure>{{ plot|drawing }}<figcaption>{{ caption }}</figcaption></figure>{% endfor %}
{% endif %}

<section class="engineer">
<h2>For engineers</h2>
<p class="muted">Every number on this page is in certificate.json, evaluation.json, rounds.json or manifest.json. Run <code>fedembed verify</code> on this folder to recompute epsilon from the events below and to compare every digest.</p>
<h3>Certificate</h3>
<div class="scroll"><table class="facts">{% for name, value in facts %}<tr><td>{{ name }}</td><td>{{ value|num }}</td></tr>{% endfor %}</table></div>
{% if observers %}
<h3>Accountants</h3>
<div class="scroll"><table>
<tr><th>Against</th><th class="n">epsilon ({{ first_accountant }})</th><th>second opinion</th><th class="n">lower</th><th class="n">estimate</th><th class="n">upper</th></tr>
{% for o in observers %}{% set second = o.second_opinion or {} %}
<tr><td>{{ o.who }}</td><td class="n">{{ o.epsilon|num }}</td><td>{{ second.accountant|default(o.second_opinion_reason|default("none"))|num }}</td><td class="n">{{ second.lower|default(none)|num }}</td><td class="n">{{ second.estimate|default(none)|num }}</td><td class="n">{{ second.upper|default(none)|num }}</td></tr>
{% endfor %}</table></div>
<h3>Events</h3>
<pre>{{ events }}</pre>
{% endif %}
<h3>Rounds</h3>
{% if rounds.rows %}
<div class="scroll"><table class="wide"><tr>{% for name in rounds.columns %}<th class="n">{{ name }}</th>{% endfor %}</tr>
{% for row in rounds.rows %}<tr>{% for value in row %}<td class="n">{{ value|num }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{% if rounds.hidden %}<p class="muted">{{ rounds.hidden|num }} of {{ round_count|num }} rounds are left out in the middle; rounds.json has them all.</p>{% endif %}
{% else %}<p>No history was recorded.</p>{% endif %}
<h3>Figures</h3>
{% if scores %}<div class="scroll"><table class="wide"><tr><th>Task</th><th>Metric</th><th class="n">n</th><th class="n">coverage</th></tr>{% for s in scores %}<tr><td class="key">{{ s.task }}</td><td class="key">{{ s.metric }}</td><td class="n">{{ s.n|num }}</td><td class="n">{{ s.coverage|figure }}</td></tr>{% endfor %}</table></div>{% else %}<p>None.</p>{% endif %}
<h3>Scenario</h3>
<div class="scroll"><table class="facts">{% for name, value in scenario %}<tr><td>{{ name }}</td><td>{{ value|num }}</td></tr>{% endfor %}</table></div>
{% if notes %}<h3>Notes</h3><div class="scroll"><table class="facts">{% for name, value in notes %}<tr><td>{{ name }}</td><td>{{ value|num }}</td></tr>{% endfor %}</table></div>{% endif %}
</section>
</main>
</body>
</html>
"""
