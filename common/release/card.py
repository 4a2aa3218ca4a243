"""The model card: README.md with YAML front matter, as model hubs read it, and the claim in words."""

from __future__ import annotations

import json
from typing import Any

from common.release.contents import ReleaseContents


def model_card(contents: ReleaseContents) -> str:
    """Markdown of the card. Strings in the front matter are JSON strings, which are valid YAML whatever they hold."""
    task = contents.scenario.get("task", {})
    front = {
        "library_name": "fedembed",
        "license": contents.notes.get("license", "other"),
        "tags": ["embeddings", "federated-learning", "differential-privacy", str(task.get("family", "unknown"))],
        "metrics": sorted({score.metric for score in contents.evaluation}),
    }
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---", ""]
    lines += ["# Embeddings trained by fedembed", "", *_claim(contents), *_contents(contents), *_scores(contents)]
    lines += ["## Check it", "", "    fedembed verify .", "", "`report.html` says the same with plots."]
    return "\n".join(lines) + "\n"


def _claim(contents: ReleaseContents) -> list[str]:
    claim = contents.certificate
    lines = ["## Privacy claim", ""]
    if claim.get("void") is not False:
        lines += [f"**VOID: {_text(claim.get('void_reason') or 'no reason is stated')}. It protects nobody.**", ""]
    lines += [_text(claim.get("sentence", "No claim is stated.")), ""]
    not_covered = claim.get("not_covered") or []
    if not_covered:
        lines += ["Not covered:", "", *(f"- {_text(item)}" for item in not_covered), ""]
    return lines


def _contents(contents: ReleaseContents) -> list[str]:
    lines = ["## Contents", ""]
    lines += [f"- table `{name}`: {len(t)} rows of {t.dimensions} numbers" for name, t in contents.tables.items()]
    if contents.model:
        size = sum(array.size for array in contents.model.values())
        lines += [f"- encoder: {len(contents.model)} arrays, {size} parameters (`model.safetensors`)"]
    statement = contents.notes.get("clients")
    return [*lines, "", *([f"Data: {_text(statement)}", ""] if statement else [])]


def _scores(contents: ReleaseContents) -> list[str]:
    if not contents.evaluation:
        return ["## Quality", "", "Not evaluated.", ""]
    lines = ["## Quality", "", "| task | metric | value | 95 % interval | baseline |", "|---|---|---|---|---|"]
    for s in contents.evaluation:
        baseline = f"{s.baseline_value:.4f} ({_text(s.baseline_name)})" if s.baseline_name else "-"
        interval = f"{s.ci_low:.4f} to {s.ci_high:.4f}"
        lines.append(f"| {_text(s.task)} | {_text(s.metric)} | {s.value:.4f} | {interval} | {baseline} |")
    return [*lines, ""]


def _text(value: Any) -> str:
    """One line of Markdown that renders as the plain text it is."""
    text = " ".join(str(value).split())
    return "".join(f"\\{c}" if c in "\\`*_[]<>#|" else c for c in text)
