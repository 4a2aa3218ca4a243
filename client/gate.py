"""The gate of a site: every question that its policy and ledger are asked before anything is computed."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping

from client.ledger import Ledger
from client.policy import Policy, Refusal, check, check_colluders, check_message, check_period, check_spend
from client.upload import check_upload
from common import wire
from common.announcement import announcement
from common.errors import SecAggError
from common.privacy.grid import SecureSum
from common.privacy.plan import PrivacyPlan
from common.secagg.keys import verify
from common.table import RowDomain
from common.work import Work


def check_run(policy: Policy, work: Work, message_bytes: int) -> Refusal | None:
    """Whether the policy allows a run at all: its terms, its demands, and the size of its messages."""
    plan = work.plan
    refusal = check(
        policy,
        mode=plan.mode,
        family=work.scenario.task.family,
        unit=plan.unit,
        epsilon=plan.epsilon("public"),
        delta=plan.delta,
        rounds=plan.rounds,
        test_mode=plan.test_mode,
    )
    if refusal is None and plan.secure is not None:
        refusal = check_colluders(policy, plan.secure.colluders) or check_cohort(policy, plan.secure)
    return refusal or check_demands(policy, plan) or check_upload(policy, work) or check_message(policy, message_bytes)


def check_cohort(policy: Policy, secure: SecureSum) -> Refusal | None:
    """Whether rounds may be as small as a run allows: a site that would refuse every round need not reserve the run."""
    for name, least in (("min_cohort", policy.min_cohort), ("min_survivors", policy.min_survivors)):
        if secure.survivors < least:
            return Refusal(name, f"rounds of {secure.survivors} clients are allowed for, at least {least} are demanded")
    if policy.roster_required and not secure.roster:
        return Refusal("roster", "the run has no roster, and one is demanded")
    return None


def check_account(
    policy: Policy, ledger: Ledger, plan: PrivacyPlan, fingerprint: str, extra: Mapping[str, int]
) -> Refusal | None:
    """Whether the ledger's account of a data set has room for ``extra`` events (JSON -> count), ever and lately.

    At the smallest delta that any of its runs has stated: a run that was admitted at its own would else push one with a
    smaller delta over the limit, which has been paid for already.
    """
    delta = ledger.least_delta(fingerprint, plan.unit, plan.delta)

    def epsilon(since: str, more: Mapping[str, int]) -> float:
        return ledger.epsilon(fingerprint, plan.unit, delta, extra=more, since=since)

    others = [unit for unit in ledger.units(fingerprint) if unit != plan.unit]
    before, after = epsilon("", {}), epsilon("", extra)
    refusal = check_spend(policy, unit=plan.unit, before=before, after=after, other_units=len(others))
    if refusal is not None or policy.max_epsilon_per_period is None:
        return refusal
    since = policy.period_begins
    return check_period(policy, before=epsilon(since, {}), after=epsilon(since, extra))


def account_question(policy: Policy, ledger: Ledger, plan: PrivacyPlan, fingerprint: str) -> Iterator[bytes]:
    """Everything that ``check_account`` and ``check_lately`` look at where nothing is added."""
    period = policy.max_epsilon_per_period is not None
    sinces = ("", policy.period_begins) if period else ("",)
    spent = [sorted(ledger.spent(fingerprint, plan.unit, since).items()) for since in sinces]
    delta = ledger.least_delta(fingerprint, plan.unit, plan.delta)
    yield repr((policy, fingerprint, plan.unit, delta, ledger.units(fingerprint), sinces, spent)).encode()


def check_lately(policy: Policy, ledger: Ledger, plan: PrivacyPlan, fingerprint: str) -> Refusal | None:
    """Whether what a data set spent lately, this round with it, is within the limit for a period.

    A run that was admitted before the period began is in no sum of the period until one of its rounds is charged: a
    coordinator could have runs admitted, wait, and ask for the rounds of all of them in the same week.
    """
    if policy.max_epsilon_per_period is None:
        return None
    delta = ledger.least_delta(fingerprint, plan.unit, plan.delta)
    lately = ledger.epsilon(fingerprint, plan.unit, delta, since=policy.period_begins)
    return check_period(policy, before=lately, after=lately)


def check_demands(policy: Policy, plan: PrivacyPlan) -> Refusal | None:
    """Whether a plan protects against everybody that the policy names, with as much noise as it asks for."""
    for observer in policy.observers:
        found = plan.epsilon(observer)
        if not found <= policy.max_epsilon:
            return Refusal(
                "observer",
                f"against {observer.replace('_', ' ')} the run's epsilon is {found:.4g}, "
                f"the limit is {policy.max_epsilon:.4g}",
            )
    if policy.secure_aggregation_required and (plan.mode != "distributed" or plan.secure is None):
        return Refusal("secure_aggregation", f"mode {plan.mode!r} has no secure aggregation, and it is demanded")
    noise = plan.noise_multiplier or 0.0
    if not noise >= policy.min_noise_multiplier:
        return Refusal("noise", f"noise multiplier {noise:.4g} is below the {policy.min_noise_multiplier:.4g} demanded")
    return None


def check_hours(policy: Policy, now: datetime.datetime) -> Refusal | None:
    """Whether this is an hour at which the site works; ``now`` is the site's own time. Hours may cross midnight."""
    if policy.hours is None:
        return None
    begin, end = policy.hours
    inside = begin <= now.hour < end if begin < end else now.hour >= begin or now.hour < end
    return None if inside else Refusal("hours", f"this site works from {begin}:00 to {end}:00 of its own time")


def check_coordinator(
    policy: Policy, payload: wire.Payload, domain: RowDomain | None, *, running: str = ""
) -> tuple[str, Refusal | None]:
    """Who announced a run, and whether the policy works for that coordinator; nothing of the run is computed yet.

    Args:
        domain: the rows that came with the announcement.
        running: hash of the code that runs here; empty in a simulation.

    Returns:
        The public key whose signature holds (empty where nothing is signed and nothing is demanded), and a refusal.

    Raises:
        WireError: a malformed payload.
    """
    signer, bundle = str(payload.config.get("signer", "")), str(payload.config.get("bundle", ""))
    if policy.coordinators is None and not signer:
        return "", None
    if policy.coordinators is not None and signer not in policy.coordinators:
        return "", Refusal("coordinator", "the run is not signed by a coordinator that this site works for")
    run, scenario, signature = (payload.text(key) for key in ("run", "scenario", "signature"))
    try:
        rows = "" if domain is None else domain.digest
        text = announcement(run=run, scenario=scenario, domain=rows, bundle=bundle)
        verify(bytes.fromhex(signer), bytes.fromhex(signature), text)
    except (SecAggError, ValueError):
        return "", Refusal("signature", "the coordinator's signature does not fit the run")
    if running and bundle != running:
        return "", Refusal("bundle", "the coordinator signed for other code than that which runs here")
    return signer, None
