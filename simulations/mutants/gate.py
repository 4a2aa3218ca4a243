"""A site that looks away: each question of its gate, and of the process that serves it, not asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from client import gate, session
from client.agent import approval, task
from client.agent.fork_server import CODE_VARIABLE
from client.kept_run import KeptRun
from common.announcement import announcement
from simulations.mutants import Mutant, broken
from simulations.protocol_checks.gate import fields

_CHECK_COORDINATOR = gate.check_coordinator


def _nothing(*given: Any, **named: Any) -> None:
    """A question that is not asked."""


def _anybody(*given: Any, **named: Any) -> tuple[str, None]:
    """Whoever announces a run is who it should be."""
    return "", None


def _any_code(*given: Any, running: str = "") -> Any:
    """What runs here is what was signed for."""
    return _CHECK_COORDINATOR(*given)


def _blind_to(field: str) -> Callable[..., bytes]:
    """An announcement in which one field is taken for the honest one, whatever it is."""

    def read(**named: str) -> bytes:
        return announcement(**(named | {field: fields()[field]}))

    return read


class _Everything(dict[str, Any]):
    """A list on which every bundle is."""

    def __contains__(self, key: object) -> bool:
        return True


def _from_anywhere(loader: Any, place_of: Any, places: Any) -> Any:
    return loader


def _whatever_the_period(policy: Any, ledger: Any, plan: Any, fingerprint: str) -> Iterator[bytes]:
    """What is asked of an account, without what it spent lately."""
    yield repr((policy, plan.delta, ledger.spent(fingerprint, plan.unit))).encode()


def _unlisted(name: str, killed_by: str, *, owner: Any, attribute: str) -> Mutant:
    return broken(name, killed_by, owner=owner, attribute=attribute, by=_nothing)


MUTANTS = (
    _unlisted("a signature that is not verified", "site_knows_its_coordinator", owner=gate, attribute="verify"),
    broken(
        "a coordinator that is not asked for",
        "site_knows_its_coordinator",
        owner=session,
        attribute="check_coordinator",
        by=_anybody,
    ),
    broken(
        "code that was not signed for",
        "site_knows_its_coordinator",
        owner=session,
        attribute="check_coordinator",
        by=_any_code,
    ),
    *(
        broken(
            f"a signature for any {field}",
            "site_knows_its_coordinator",
            owner=gate,
            attribute="announcement",
            by=_blind_to(field),
        )
        for field in ("run", "scenario", "domain", "bundle")
    ),
    _unlisted("a policy that is not asked about a run", "site_keeps_its_policy", owner=session, attribute="check_run"),
    _unlisted("terms that no policy limits", "site_keeps_its_policy", owner=gate, attribute="check"),
    _unlisted("a policy without demands", "site_keeps_its_policy", owner=gate, attribute="check_demands"),
    _unlisted("messages of any size", "site_looks_at_every_message", owner=session, attribute="check_message"),
    _unlisted("work at any hour", "site_looks_at_every_message", owner=session, attribute="check_hours"),
    _unlisted("an account unasked", "site_counts_what_it_spent", owner=session, attribute="check_account"),
    _unlisted("an account without limit", "site_counts_what_it_spent", owner=gate, attribute="check_spend"),
    _unlisted("a period without limit", "site_counts_what_it_spent", owner=gate, attribute="check_period"),
    _unlisted(
        "rounds of old runs for nothing", "site_counts_rounds_of_old_runs", owner=session, attribute="check_lately"
    ),
    broken(
        "a bundle that nobody approved",
        "site_runs_approved_code",
        owner=task,
        attribute="approved_bundles",
        by=lambda folder: _Everything(),
    ),
    broken(
        "a bundle that is not the code that runs",
        "site_runs_approved_code",
        owner=task,
        attribute="foreign_files",
        by=lambda place: [],
    ),
    broken(
        "code that was replaced under a running agent",
        "site_runs_approved_code",
        owner=task,
        attribute="installed_code",
        by=lambda: os.environ.get(CODE_VARIABLE, ""),
    ),
    broken(
        "a policy that is asked once",
        "site_asks_again_what_has_changed",
        owner=KeptRun,
        attribute="said_yes",
        by=lambda kept, about, question: kept._path(about).exists(),
    ),
    broken(
        "accounts that are looked at once",
        "site_asks_again_what_has_changed",
        owner=session,
        attribute="account_question",
        by=lambda *asked: iter(()),
    ),
    broken(
        "a period that is looked at once",
        "site_counts_rounds_of_old_runs",
        owner=session,
        attribute="account_question",
        by=_whatever_the_period,
    ),
    broken(
        "code from any folder", "site_runs_approved_code", owner=task, attribute="from_its_place", by=_from_anywhere
    ),
    broken("any kind of task", "site_serves_no_other_task", owner=approval, attribute="OTHER_COMMANDS", by=()),
    _unlisted("messages that take for ever", "site_ends_in_time", owner=task, attribute="end_after"),
)
