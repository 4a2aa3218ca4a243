"""Template of the audit page's drawings, and of the numbers behind those of cost."""

# ruff: noqa: E501
PICTURES = """\
{% if trade_offs or leaks or caps or detectable or record.spend or costs or mapped or record.absent %}
<section class="pictures">
<h2>In pictures</h2>
{% if trade_offs %}
<h3>Who is found, and at the price of how many wrong accusations</h3>
<div class="pair">{% for seen, drawn in trade_offs %}<figure><b>From {{ seen }}</b>{{ drawn|drawing }}</figure>{% endfor %}</div>
<p class="small">Dashed: the most that the claim allows. Solid: the audit's canaries. Near the dotted line an adversary might as well guess. A measured line may cross the dashed one by chance; the tests below decide.</p>
{% endif %}
{% if caps or detectable %}
<h3>What this audit could have seen</h3>
<div class="pair">{% if caps %}<figure><b>Epsilon: claimed, shown, and the most it could show</b>{{ caps|drawing }}</figure>{% endif %}{% if detectable %}<figure><b>Errors of the noise that it would have noticed</b>{{ detectable|drawing }}</figure>{% endif %}</div>
<p class="small">Silence counts only where the bar reaches beyond the claim. A red bar cannot speak: even without any noise this audit would have found nothing there.</p>
{% endif %}
{% if leaks %}
<h3>Attacks on the real data, before and after</h3>
<div class="pair">{% for seen, drawn in leaks %}<figure><b>From {{ seen }}</b>{{ drawn|drawing }}</figure>{% endfor %}</div>
<p class="small">Upright stroke: guessing. Diamond: the same attack on a run without protection. Dot: the audited run, with its 95 % interval.</p>
{% endif %}
<h3>What the protection costs</h3>
{% if spend or costs %}
<div class="pair">{% if spend %}<figure class="spend"><b>Epsilon, round by round</b>{{ spend|drawing }}</figure>{% endif %}{% for task, baseline, drawn in costs %}<figure class="cost"><b>Quality against epsilon: {{ task }}</b>{{ drawn|drawing }}{% if baseline %}<p class="small">Baseline: {{ baseline }}.</p>{% endif %}</figure>{% endfor %}</div>
{% if costs %}<p class="small">Upright: 95 % intervals. {% if record.identity.kind == "scenario" %}Dot: the audited run. Diamond: the same run without protection, where epsilon has no limit. {% else %}Dot: the release. {% endif %}Dashed: the baseline that it has to beat.</p>
{% endif %}
{% endif %}
{% if record.spend|length == 1 %}<p>Epsilon over rounds is one number: all of it is spent in {% if record.spend[0].round == 1 %}the only round{% else %}round {{ record.spend[0].round|num }}{% endif %}.</p>
{% elif "spend" in record.absent %}<p>Epsilon over rounds is not drawn: {{ record.absent.spend }}.</p>
{% endif %}
{% if "quality" in record.absent %}<p>Quality against epsilon is not drawn: {{ record.absent.quality }}.</p>
{% endif %}
<h3>The table as a map</h3>
{% if mapped %}
<figure class="map">{{ mapped|drawing }}</figure>
<p class="small">The first {{ record.map["keys"]|length|num }} rows, noise included, on the two directions in which they vary most. These hold {{ (100 * record.map.variance_share)|num }} % of their variance: near on the map need not be near in the table.</p>
{% elif "map" in record.absent %}<p>It is not drawn: {{ record.absent.map }}.</p>
{% endif %}
</section>
{% endif %}
"""

COSTS = """\
{% if record.spend %}
<h3>Epsilon over rounds</h3>
<div class="scroll"><table class="wide"><tr><th>Round</th><th>Against</th><th class="n">epsilon</th></tr>
{% for entry in record.spend %}{% for name, epsilon in entry.epsilon.items() %}<tr><td>{{ entry.round|num }}</td><td>{{ name|replace("_", " ") }}</td><td class="n">{{ epsilon|risk }}</td></tr>
{% endfor %}{% endfor %}</table></div>
{% endif %}
{% if record.quality %}
<h3>Quality</h3>
<div class="scroll"><table class="wide">
<tr><th>Task</th><th>Metric</th><th>Run</th><th class="n">epsilon</th><th class="n">value</th><th class="n">95 % interval</th><th class="n">baseline</th><th>baseline is</th><th class="n">n</th><th class="n">coverage</th></tr>
{% for q in record.quality %}
<tr><td class="key">{{ q.task }}</td><td class="key">{{ q.metric }}</td><td>{{ q.run }}</td><td class="n">{{ q.epsilon|up }}</td><td class="n">{{ q.value|num }}</td><td class="n">{{ q.ci_low|num }} to {{ q.ci_high|num }}</td><td class="n">{{ q.baseline_value|num }}</td><td>{{ q.baseline_name or "–" }}</td><td class="n">{{ q.n|num }}</td><td class="n">{{ q.coverage|num }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
"""
