"""The report's Jinja2 template. A Python module, because Flower's app bundles carry no other kind of text file."""

# ruff: noqa: E501
from common.evaluation.report.markup import ACCOUNTANTS, HEAD, STYLE

PAGE = (
    HEAD
    + """<title>{{ title }} · fedembed report</title>
"""
    + STYLE
    + """</head>
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
<p>No audit was run as part of making this release; <code>fedembed audit</code> attacks its scenario and its tables.{% if not void %} The claim rests on mathematics and on the software being right.{% endif %}</p>

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
"""
    + ACCOUNTANTS
    + """<h3>Events</h3>
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
)
