"""The audit page's Jinja2 template. A Python module for the reason that the report's is one."""

# ruff: noqa: E501
from common.evaluation.report.audit_pictures import COSTS, PICTURES
from common.evaluation.report.markup import ACCOUNTANTS, HEAD, STYLE

OWN_STYLE = """\
<style>
.verdict { border: 2px solid var(--tone); border-left-width: 8px; padding: 1rem 1.3rem; margin: 0 0 2rem; break-inside: avoid; }
.verdict strong { display: block; font: 700 1.6rem/1.25 "Inter", "Helvetica Neue", Arial, "Liberation Sans", sans-serif; letter-spacing: .01em; color: var(--tone); }
.verdict p { margin: .45rem 0 0; }
.verdict .muted { overflow-wrap: anywhere; }
.consistent { --tone: var(--accent); }
.violation { --tone: var(--alarm); }
.inconclusive { --tone: #8a5a00; }
.tone { color: var(--tone); font-weight: 600; }
h1 { overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); column-gap: 1.6rem; align-items: start; }
.pair figure { margin: .8rem 0; }
.pair b, .small { font: 600 .8rem/1.4 "Inter", "Helvetica Neue", Arial, "Liberation Sans", sans-serif; }
.small { font-weight: 400; color: var(--muted); }
.facts td:first-child { width: 38%; }
.two { columns: 2; column-gap: 2.2rem; }
.two li { break-inside: avoid; margin-top: 0; }
@media (max-width: 38rem) {
  .two { columns: 1; }
  main { padding: 1.6rem 1rem 3rem; }
  .cards tr { display: block; border-bottom: 1px solid var(--ink); padding: .4rem 0; }
  .cards th { display: none; }
  .cards td { display: block; border: 0; padding: .1rem 0; text-align: left; white-space: normal; }
  .cards td[data-label]::before { content: attr(data-label) ": "; color: var(--muted); font-weight: 400; }
}
@media print {
  html { font-size: 13px; }
  body { font-size: 9.5pt; line-height: 1.45; }
  .engineer { font-size: 9pt; }
  @page { margin: 12mm 16mm; }
  h2 { font-size: 1.2rem; margin: 1rem 0 .3rem; }
  p { margin: .35rem 0; }
  li { margin: .1rem 0; }
  ul { margin: .3rem 0; }
  h3 { margin: .9rem 0 .3rem; }
  header { margin-bottom: 1rem; padding-bottom: .6rem; }
  .verdict { margin-bottom: 1rem; padding: .6rem 1rem; }
  .claim { font-size: 1.15rem; line-height: 1.4; margin: .5rem 0 .7rem; }
  td { padding-top: .25rem; padding-bottom: .25rem; }
  .pair + .small { break-before: avoid; }
  .pair { grid-template-columns: 1fr 1fr; }
  .pair figure { margin: .4rem 0; }
  .verdict, .yes, .no, .tone { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
</style>
"""

_VERDICT = """\
<main{% if void %} class="void"{% endif %}>
<header>
<p class="eyebrow">fedembed audit of a {{ record.identity.kind }} · {{ record.identity.date }}</p>
<h1>{{ record.identity.audited }}</h1>
</header>
<div class="verdict {{ style }}" role="status" id="verdict"><strong>{{ record.outcome }}</strong>
<p>{{ meaning }}</p>
<p class="muted">{{ record.reason|sentence }}.</p></div>
{% if void %}
<div class="banner" role="alert"><strong>{% if claim.mode is defined and claim.mode == "none" %}Nothing is claimed.{% else %}The certificate is void.{% endif %}</strong>
{{ (claim.void_reason|default("", true) or "no reason is stated")|sentence }}.</div>
{% endif %}
"""

_CLAIMED = """\
<h2>What was claimed</h2>
<p class="claim">{{ record.claim.sentence }}</p>
{% if claim.delta is defined and not void %}
<p><b>For whom.</b> Protected is one {{ unit }}: {{ claim.adjacency }}. Who is in the data as several of them is protected less.</p>
{% endif %}
{% if observers %}
<p><b>Against whom.</b> Whoever accuses 1 in 100 wrongly finds 1 in 100 of the participants by guessing, and may find all of them where nothing protects. A claim limits the share:</p>
<div class="scroll"><table class="cards">
<tr><th>Who looks</th><th>What they see</th><th class="n">Epsilon</th><th class="n">Singled out, at&nbsp;most</th><th class="n">Canaries found</th></tr>
{% for o in observers %}
<tr><td class="who">{{ o.who }}</td><td>{{ o.sees }}</td>
{% if o.epsilon is none %}
<td class="n no">not protected</td><td colspan="2">{{ (o.reason or "nothing is claimed")|sentence }}.</td>
{% else %}
<td class="n" data-label="epsilon">{{ o.epsilon|risk }}</td><td class="n" data-label="singled out, at most">{% if o.caught is not none %}{{ (100 * o.caught)|risk(1) }} %{% else %}–{% endif %}</td><td class="n" data-label="canaries found">{% for seen, rate in o.found %}{{ (100 * rate)|risk(1) }} %{% if o.found|length > 1 %} <span class="small">{{ seen }}</span>{% endif %}{% if not loop.last %}<br>{% endif %}{% else %}{% if o.tested %}too few{% else %}not tested{% endif %}{% endfor %}</td>
{% endif %}</tr>
{% endfor %}
</table></div>
{% endif %}
{% if singled_out %}
<p>The best attack on real records ({{ singled_out.attack|replace("_", " ") }}, {{ singled_out.metric }}) found {{ (100 * singled_out.control_value)|risk(1) }} % without protection, {{ (100 * singled_out.value)|risk(1) }} % in the audited run.</p>
{% endif %}
"""

_TRIED = """\
<h2>What was tried</h2>
<ul>
{% if views %}
<li><b>Canaries.</b> Made-up participants were planted, each in the data or not by a coin of its own, and built to leave the strongest trace that the claim allows. It was then told from {% for v in views %}{{ v.seen }} ({{ v.record.canaries|num }}{% if loop.first %} canaries{% endif %}){% if not loop.last %}{{ ", and " if loop.revindex == 2 else ", " }}{% endif %}{% endfor %} which of them had taken part.</li>
{% else %}
<li><b>Canaries.</b> None: whether noise was added was not tested.</li>
{% endif %}
<li><b>Attacks on the real data.</b> {{ tried|num }} kinds, beside guessing{% if record.identity.kind == "scenario" %} and beside the same attack on an unprotected run{% endif %}{% if refused %}; {{ refused|length|num }} more had nothing to look at{% endif %}.</li>
<li><b>The mechanism itself.</b> {% if record.conformance %}{{ record.conformance|length|num }} {% if record.identity.kind == "scenario" %}exact tests of clip, noise, sampling and accounts, with made-up records.{% else %}checks of the folder: digests, events, epsilon.{% endif %}{% else %}Not tested.{% endif %}</li>
</ul>
"""

_FOUND = """\
<h2>What was found</h2>
{% if views %}
<div class="scroll"><table class="cards">
<tr><th>Canaries, from</th><th>Claimed against</th><th class="n">Epsilon claimed</th><th class="n">Shown, at&nbsp;least</th><th class="n">Error noticed from</th><th>Verdict</th></tr>
{% for v in views %}
<tr><td><b>{{ v.seen|sentence }}</b></td><td data-label="claimed against">{{ v.who }}</td><td class="n" data-label="epsilon claimed">{{ v.record.claimed_epsilon|risk }}</td><td class="n" data-label="shown, at least">{{ v.bound|up }}</td><td class="n" data-label="error noticed from">{% if v.record.noticed is none %}none noticed{% else %}{{ v.record.noticed|risk(2) }} ×{% endif %}</td><td class="{{ v.style }}"><span class="tone">{{ v.record.outcome }}</span></td></tr>
{% endfor %}
</table></div>
<p class="muted">More shown than claimed refutes the claim; less proves nothing. “Error noticed from”: how many times too small the noise had to be for every design of canaries here to show it in nearly every run.</p>
{% endif %}
<ul>
{% if not views %}<li>About the noise nothing: no adversary's view was tested with canaries.</li>
{% endif %}
{% if broken %}
<li><span class="no">{{ broken|length|num }} of {{ record.conformance|length|num }} {{ checks }} do not hold:</span>{% for finding in broken %} {{ finding.test }} {{ finding.subject }} ({{ finding.statistic }}){{ "." if loop.last else ";" }}{% endfor %}</li>
{% elif record.conformance %}
<li>All {{ record.conformance|length|num }} {{ checks }} hold.</li>
{% endif %}
{% for promised, words in ((true, "what the claim speaks about"), (false, "what no such claim promises to hide")) %}
{% set rows = attacks[promised] %}{% set better = rows|selectattr("better")|list %}{% set unknown = rows|selectattr("better", "none")|list %}
{% if rows %}<li>{{ better|length|num }} of {{ rows|length|num }} kinds of attack on {{ words }} found more than guessing does{% if better %}: {{ better|map(attribute="name")|join(", ") }}{% endif %}{% if unknown %}; of {{ unknown|map(attribute="name")|join(", ") }} it is not known{% endif %}.</li>
{% endif %}
{% endfor %}
</ul>
"""

_NOT_COVERED = """\
<h2>What is not covered</h2>
<ul>{% for item in record.not_covered %}<li>{{ item|sentence }}</li>{% endfor %}
</ul>
"""

_ATTACKS = """\
<div class="scroll"><table class="cards">
<tr><th>The attack asks</th><th>From</th><th class="n">By guessing</th><th class="n">Unprotected</th><th class="n">Audited</th><th>Result</th></tr>
{% for row in rows %}
<tr><td><b>{{ row.question }}</b> <span class="small">{{ row.k.metric }}</span></td><td data-label="from">{{ row.seen }}</td><td class="n" data-label="by guessing">{{ row.k.chance_value|down }}</td><td class="n" data-label="unprotected">{% if row.k.control_value is none %}not run{% else %}{{ row.k.control_value|up }}{% endif %}</td><td class="n" data-label="audited">{{ row.k.value|up }}</td><td data-label="result">{{ row.judged }}</td></tr>
{% endfor %}
</table></div>
"""

_TABLES = (
    """\
{% if claim.not_covered and not void %}
<h3>What the claim itself does not cover</h3>
<ul class="two">{% for item in claim.not_covered %}<li>{{ item|sentence }}</li>{% endfor %}</ul>
{% endif %}
{% set rows = attacks[true] %}{% if rows %}
<h2>Attacks on what the claim speaks about</h2>
<p>Each by the figure farthest above guessing; 1 is always right. To beat guessing is no violation: the claim limits by how much.</p>
"""
    + _ATTACKS
    + """{% endif %}
{% set rows = attacks[false] %}{% if rows %}
<h2>Attacks on what it does not promise to hide</h2>
<p>No noise in training stops these: they learn from what all the data have in common, or from the vector itself.</p>
"""
    + _ATTACKS
    + """{% endif %}
{% if refused %}
<p><b>Not tried,</b> because there was nothing to look at:{% for question, n in refused %} {{ question }}{% endfor %}</p>
{% endif %}
"""
)

_TESTS = """\
<section class="engineer">
<h2>For engineers</h2>
<p class="muted">Every number on this page is in audit.json. Bounds, errors and successes are rounded up, caps and chance down.</p>
{% for v in views %}
<h3>Canaries from {{ v.seen }}, against {{ v.who }}</h3>
<p>{{ v.record.reason|sentence }}.</p>
<div class="scroll"><table class="facts">
<tr><td>outcome</td><td>{{ v.record.outcome }}</td></tr>
<tr><td>claimed epsilon</td><td>{{ v.record.claimed_epsilon|risk }}</td></tr>
<tr><td>delta</td><td>{{ v.record.delta|num }}</td></tr>
<tr><td>canaries</td><td>{{ v.record.canaries|num }}</td></tr>
<tr><td>AUC of the first design</td><td>{{ v.record.auc|up }}{% if v.record.auc_interval %}, 95 % interval {{ v.record.auc_interval[0]|up }} to {{ v.record.auc_interval[1]|up }}{% endif %}</td></tr>
{% for rate, found in v.rates %}<tr><td>true positives at a false positive rate of {{ rate }}</td><td>{{ found|up }}</td></tr>
{% endfor %}
</table></div>
{% for design, tests in v.designs %}
<p class="small"><b>{{ design }}</b>{% if tests[0].supplementary %} (adds alarms alone: its silence is not counted on){% endif %}</p>
<div class="scroll"><table class="wide">
<tr><th>Test</th><th class="n">bound</th><th class="n">estimate</th><th class="n">alpha</th><th class="n">guesses</th><th class="n">right</th><th class="n">cap</th><th class="n">attainable</th><th class="n">detectable</th><th>refutes</th></tr>
{% for t in tests %}
<tr><td class="key">{{ t.method|replace("_", " ") }}</td><td class="n">{{ t.bound|up }}</td><td class="n">{{ t.estimate|up }}</td><td class="n">{{ t.alpha|num }}</td><td class="n">{{ t.guesses|num }}</td><td class="n">{{ t.right|num }}</td><td class="n">{{ t.cap|down }}</td><td class="n">{{ t.attainable|down }}</td><td class="n">{% if t.detectable is none %}none{% else %}{{ t.detectable|up(2) }}{% endif %}</td><td>{% if t.refutes %}<span class="no">yes</span>{% else %}no{% endif %}</td></tr>
{% endfor %}
</table></div>
{% endfor %}
{% if v.curve %}
<p class="small">Trade-off curve of the first design</p>
<div class="scroll"><table class="facts">{% for name, values in v.curve %}<tr><td>{{ name }}</td><td>{% for x in values %}{{ x|num }}{% if not loop.last %}, {% endif %}{% endfor %}</td></tr>{% endfor %}</table></div>
{% endif %}
{% endfor %}
{% if views %}<p class="muted">bound: lower bound of epsilon that holds with probability 1 − alpha. estimate: no bound. cap: the bound if every guess were right. attainable: the bound that this test prints, in the median, of a mechanism that is exactly as claimed. detectable: smallest factor by which noise had to be too small.</p>{% endif %}
"""

_NUMBERS = """\
<h3>Conformance</h3>
{% if record.conformance %}
<div class="scroll"><table class="wide"><tr><th>Test</th><th>Subject</th><th>Statistic</th><th>Holds</th></tr>
{% for f in record.conformance %}<tr><td>{{ f.test }}</td><td class="key">{{ f.subject }}</td><td class="key">{{ f.statistic }}</td><td>{% if f.holds %}<span class="yes">yes</span>{% else %}<span class="no">no</span>{% endif %}</td></tr>
{% endfor %}</table></div>
{% else %}<p>Not tested.</p>{% endif %}
<h3>Attacks</h3>
{% if record.leaks %}
<div class="scroll"><table class="wide">
<tr><th>Attack</th><th>Sees</th><th>Metric</th><th class="n">value</th><th class="n">95 % interval</th><th class="n">n</th><th class="n">chance</th><th>chance is</th><th class="n">unprotected</th><th>promised</th></tr>
{% for k in record.leaks %}
<tr><td class="key">{{ k.attack|replace("_", " ") }}</td><td>{{ k.sees }}</td><td class="key">{{ k.metric }}</td><td class="n">{{ k.value|up }}</td><td class="n">{{ k.ci_low|up }} to {{ k.ci_high|up }}</td><td class="n">{{ k.n|num }}</td><td class="n">{{ k.chance_value|down }}</td><td>{{ k.chance_name }}</td><td class="n">{{ k.control_value|up }}</td><td>{{ k.promised|num }}</td></tr>
{% endfor %}
</table></div>
{% else %}<p>None ran.</p>{% endif %}
{% if record.not_run %}
<h3>Attacks that did not run</h3>
<div class="scroll"><table class="wide"><tr><th>Attack</th><th>Sees</th><th>Why not</th></tr>
{% for n in record.not_run %}<tr><td class="key">{{ n.attack|replace("_", " ") }}</td><td>{{ n.sees }}</td><td class="key">{{ n.reason }}</td></tr>
{% endfor %}</table></div>
{% endif %}
<h3>Settings of the audit</h3>
<div class="scroll"><table class="facts">
<tr><td>auditor</td><td>fedembed {{ record.identity.fedembed }}</td></tr>
<tr><td>record's schema</td><td>{{ record.schema_version|num }}</td></tr>
<tr><td>seconds</td><td>{{ record.seconds|num }}</td></tr>
{% for name, value in settings %}<tr><td>{{ name }}</td><td>{{ value|num }}</td></tr>{% endfor %}
</table></div>
<h3>Certificate</h3>
<div class="scroll"><table class="facts">{% for name, value in facts + entries %}<tr><td>{{ name }}</td><td>{{ value|num }}</td></tr>{% endfor %}</table></div>
{% if observers %}
"""

_END = """\
<h3>Events</h3>
<pre>{{ events }}</pre>
{% endif %}
<h3>Scenario</h3>
<div class="scroll"><table class="facts">{% for name, value in scenario %}<tr><td>{{ name }}</td><td>{{ value|num }}</td></tr>{% endfor %}</table></div>
</section>
</main>
</body>
</html>
"""

PAGE = (
    HEAD
    + "<title>Audit of {{ record.identity.audited }}: {{ record.outcome }}</title>\n"
    + STYLE
    + OWN_STYLE
    + "</head>\n<body>\n"
    + _VERDICT
    + _CLAIMED
    + _TRIED
    + _FOUND
    + _NOT_COVERED
    + _TABLES
    + PICTURES
    + _TESTS
    + COSTS
    + _NUMBERS
    + ACCOUNTANTS
    + _END
)
