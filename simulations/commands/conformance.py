"""``fedembed conformance``."""

from __future__ import annotations

import typer

from simulations.commands.output import emit_json, note, say, table
from simulations.commands.train import JsonOption, ScenarioArgument, SeedOption, SetOption, overrides


def conformance(
    scenario: ScenarioArgument = None,
    *,
    settings: SetOption = None,
    seed: SeedOption = None,
    json_output: JsonOption = False,
) -> None:
    """Test that a scenario's privacy mechanism does what its claim says: exact tests T1 to T5, half a minute.

    SCENARIO is a TOML file or a name from `fedembed list scenarios`; without it, the embedded default. Nothing of the
    data is read: the mechanism is run on made-up records, with small tables and seeded noise.

    \b
    T1  one unit more, however adversarial, moves the release by at most C; an idle one by nothing
    T2  the noise on every table has the declared scale
    T3  it is independent over time, dimensions, rows and tables, and no row is without
    T4  who takes part is drawn as accounted
    T5  what left, what the ledgers charge and what is claimed agree; two accountants agree

    A violation ends with exit code 16. Passing says nothing about the unit you chose, or about the data.

    Example: fedembed conformance --set privacy.mode=local
    """
    from common.errors import ConformanceError
    from simulations import runs
    from simulations.conformance import conformance as found_in

    resolved = runs.find_scenario(scenario, overrides(settings, seed))
    findings = found_in(resolved)
    violations = sum(not finding.holds for finding in findings)
    if json_output:
        told = [{"test": f.test, "subject": f.subject, "statistic": f.statistic, "holds": f.holds} for f in findings]
        emit_json({"mode": resolved.privacy.mode, "conforms": not violations, "findings": told})
    elif findings:
        rows = [(f.test, f.subject, f.statistic, f.verdict) for f in findings]
        for line in table(("test", "subject", "statistic", "verdict"), rows):
            say(line)
        say(f"{len(findings)} tests, {violations or 'no'} violation{'s' * (violations > 1)}")
    else:
        say("nothing to conform to: mode none adds no noise and protects nobody")
    if violations:
        note(f"fedembed: {ConformanceError.remedy}")
        raise typer.Exit(ConformanceError.exit_code)
