"""The HTML of a run's report; a string, so that it travels in any wheel. Rendered with autoescape on."""

# ruff: noqa: E501 - breaking lines inside cells that keep white space would change the page

from __future__ import annotations

REPORT_HTML = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { --ink: #1d2329; --soft: #5c6670; --line: #dfe3e7; --panel: #f6f8fa; --good: #00765a; --bad: #b34700; --blue: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 2rem 1.25rem 4rem; color: var(--ink); background: #fff;
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Noto Sans", "Noto Sans CJK JP", "Hiragino Sans", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .7rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); font-size: .9em; }
nav a { margin-right: 1rem; color: var(--blue); text-decoration: none; }
.verdict { border-left: 5px solid var(--soft); background: var(--panel); padding: .7rem 1rem; margin: 1rem 0; }
.verdict.worse { border-color: var(--bad); } .verdict.better { border-color: var(--good); }
.warning { border-left: 5px solid #e69f00; background: #fff8e6; padding: .5rem 1rem; margin: .6rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92em; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; } td.num, th.num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.interval { font-variant-numeric: tabular-nums; white-space: nowrap; }
td.worse { color: var(--bad); font-weight: 600; } td.better { color: var(--good); font-weight: 600; }
td.text { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 11rem; }
tr.total td { font-weight: 600; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .9em; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: .8rem; margin: 1rem 0; }
.card { border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem; }
.card b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .85em; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--blue); }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .9em; overflow-wrap: anywhere; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p class="soft">{{ subtitle }}</p>
<nav class="soft"><a href="#numbers">Before and after</a><a href="#samples">Samples</a><a href="#curves">Curves</a>
<a href="#ranking">Ranking</a><a href="#cost">Time and cost</a><a href="#setup">What ran</a></nav>

{% if comparison %}
<div class="verdict {{ tone }}"><p><b>{{ comparison.sentence }}</b></p></div>
{% for text in comparison.warnings %}<p class="warning">Warning: {{ text }}</p>{% endfor %}
{% endif %}
{% if missing %}
<p class="warning">This run has no {{ missing | join(", no ") }}. What follows shows the rest.</p>
{% endif %}
<div class="cards">
{% for card in cards %}<div class="card"><b>{{ card.value }}</b><span>{{ card.label }}</span></div>
{% endfor %}</div>

<h2 id="numbers">Before and after</h2>
{% if comparison %}
<div class="scroll"><table>
<tr>{% for head in comparison.header() %}<th{% if head == "n" %} class="num"{% endif %}>{{ head }}</th>{% endfor %}</tr>
{% for row in comparison.rows %}{% set cells = row.cells() %}
<tr><td>{{ cells[0] }}</td>{% for cell in cells[1:4] %}<td class="interval">{{ cell }}</td>{% endfor %}
<td class="num">{{ cells[4] }}</td><td class="{{ row.verdict }}">{{ row.verdict }}</td></tr>
{% endfor %}</table></div>
{% for text in comparison.footnotes() %}<p class="soft">{{ text }}</p>{% endfor %}
<p class="soft">Measured with {% for name, version in comparison.versions.items() %}{{ name }} {{ version }}{{ ", " if not loop.last }}{% endfor %}.</p>
{% else %}<p>Not measured.</p>{% endif %}
{% for image in images.before_after %}<figure><img alt="{{ image.alt }}" src="{{ image.src }}"></figure>{% endfor %}

<h2 id="samples">Samples side by side</h2>
{% if samples %}
<p class="soft">The first {{ samples | length }} of {{ num_sample_prompts }} held-out prompts, not chosen by result.</p>
<div class="scroll"><table>
<tr><th>Prompt</th><th>A person</th>{% for label in sample_labels %}<th>{{ label }}</th>{% endfor %}</tr>
{% for sample in samples %}
<tr><td class="text">{{ sample.prompt }}</td><td class="text">{{ sample.reference or "–" }}</td>
{% for answer in sample.answers %}<td class="text">{% if answer %}{{ answer.completion or "(empty)" }}{% if answer.reward is not none %}
<span class="soft">reward {{ "%.2f" | format(answer.reward) }}</span>{% endif %}{% else %}–{% endif %}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{% else %}<p>No answers were kept.</p>{% endif %}

<h2 id="curves">Curves</h2>
{% for image in images.curves %}<figure><img alt="{{ image.alt }}" src="{{ image.src }}"></figure>
{% else %}<p>No metrics were logged.</p>{% endfor %}

<h2 id="ranking">Ranking</h2>
{% if ranking_facts %}<p>{{ ranking_facts }}</p>{% endif %}
{% if agreement.rows %}
<p class="soft">{{ agreement.description }}</p>
<div class="scroll"><table><tr><th>Agreement</th><th>value and interval</th><th class="num">n</th><th class="num">by chance</th></tr>
{% for row in agreement.rows %}<tr><td>{{ row.label }}</td><td class="interval">{{ row.value }}</td><td class="num">{{ row.n }}</td>
<td class="num">{{ row.chance }}</td></tr>{% endfor %}</table></div>
{% elif agreement.description %}<p class="soft">Agreement with people: {{ agreement.description }}</p>
{% else %}<p class="soft">Agreement with people was not measured.</p>{% endif %}
{% for image in images.ranking %}<figure><img alt="{{ image.alt }}" src="{{ image.src }}">
<figcaption>One prompt explained: colours are clusters, the star marks the answer that represents its cluster.</figcaption></figure>{% endfor %}
{% if explanations %}<details><summary>Why each answer has its rank</summary>
{% for text in explanations %}<p>{{ text }}</p>{% endfor %}</details>{% endif %}
{% if not images.ranking and not ranking_facts %}<p>This run ranked nothing.</p>{% endif %}

<h2 id="cost">Time, tokens, labels and cost</h2>
{% if stages %}
<div class="scroll"><table><tr><th>Stage</th><th class="num">time</th><th class="num">tokens</th><th class="num">tokens a second</th>
{% if show_cost %}<th class="num">cost</th>{% endif %}</tr>
{% for stage in stages %}<tr{% if stage.is_total %} class="total"{% endif %}><td>{{ stage.name }}</td><td class="num">{{ stage.time }}</td>
<td class="num">{{ stage.tokens }}</td><td class="num">{{ stage.speed }}</td>{% if show_cost %}<td class="num">{{ stage.cost }}</td>{% endif %}</tr>
{% endfor %}</table></div>
{% else %}<p>No times were recorded.</p>{% endif %}
{% for text in cost_notes %}<p>{{ text }}</p>{% endfor %}

<h2 id="setup">What ran</h2>
<table>{% for name, value in setup %}<tr><th>{{ name }}</th><td><code>{{ value }}</code></td></tr>{% endfor %}</table>
{% if settings %}<details><summary>All settings</summary><div class="scroll"><table>
{% for name, value in settings %}<tr><td><code>{{ name }}</code></td><td><code>{{ value }}</code></td></tr>{% endfor %}</table></div></details>{% endif %}
</body>
</html>
"""
