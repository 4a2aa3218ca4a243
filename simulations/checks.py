"""What is wrong with a scenario that can be told before data are read: said at once, not after hours of training."""

from __future__ import annotations

import math
import os
from pathlib import Path

from client import readers
from client.device import resolved_device
from common.config import CORPUS
from common.errors import ConfigError, PrivacyConfigError
from common.evaluation import quality
from common.secure_terms import neighbourhood
from common.work import Work
from server.run import refuse_leaky_settings
from simulations import corpora

MAX_NOISE_STDDEV = 1e15  # squares of such sums still fit into float32
_COPIES = 3  # of the parameters at least: the state, the update's sum, and what the server makes of both


def refuse_unfit(work: Work) -> None:
    """Raise ``ConfigError`` (or ``PrivacyConfigError``) for settings that cannot lead to a release."""
    refuse_leaky_settings(work)
    _refuse_unknown_tasks(work)
    _refuse_unfit_reader(work)
    _refuse_entangled_holdout(work)
    _refuse_unaccountable(work)
    if work.plan.secure is not None:
        neighbourhood(work.plan.secure, work.plan.secure.max_clients)  # refuses a minimum that a whole cohort fails


def refuse_unfit_machine(work: Work, *, nodes: int | None) -> None:
    """Raise ``ConfigError`` for a run that this machine cannot do.

    Args:
        nodes: how many nodes the engine has; ``None`` where it is not known beforehand.
    """
    wanted = work.scenario.federation.min_nodes
    if work.scenario.federation.roster:
        raise ConfigError(
            "federation.roster names the identities of real sites, and simulated clients have none",
            remedy="Take federation.roster out; a coordinator with sites uses it.",
        )
    if nodes is not None and wanted > nodes:
        raise ConfigError(
            f"federation.min_nodes = {wanted}, and this engine has {nodes}: the run would wait for ever",
            remedy="Leave federation.min_nodes at 1; simulated clients share a node.",
        )
    if nodes is not None:
        resolved_device(work.scenario.training.device)
    needed = 4 * _COPIES * sum(math.prod(s.shape) for s in (*work.specs, *work.update_specs))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise ConfigError(
            f"the parameters take at least {needed / 1e9:,.1f} GB, this machine has {memory / 1e9:,.1f} GB of memory",
            remedy="Lower the dimension in [task], or vocabulary.max_rows or buckets.",
        )


def _refuse_unfit_reader(work: Work) -> None:
    data = work.scenario.data
    if data.reader == CORPUS:
        _refuse_unfit_corpus(work)
        return
    readers.refuse_unfit(data, needs_labels=work.options.needs_labels)
    kind = readers.load(data.reader).records
    if kind not in work.family.records.split("|"):
        raise ConfigError(
            f"family {work.family.name!r} takes {work.family.records.replace('|', ' or ')}, "
            f"and the reader {data.reader!r} yields {kind}",
            remedy="Choose another data.reader or task.family; `fedembed list` names them.",
        )
    if data.holdout == "last" and kind != "interactions":
        raise ConfigError(
            f"data.holdout = 'last' needs interactions, and the reader {data.reader!r} yields {kind}",
            remedy="Set data.holdout = 'none'.",
        )


def _refuse_unfit_corpus(work: Work) -> None:
    """The records of a corpus are fixed, and so is the unit that they can be protected as."""
    data = work.scenario.data
    unit = corpora.unit(data.path)
    if data.unit not in ("client", "record", unit):
        raise ConfigError(
            f"data.unit = {data.unit!r}, and the units of corpus {data.path!r} are {unit}s",
            remedy=f"Set data.unit = {unit!r} (or 'record', which is never more than one of them) or 'client'.",
        )


def _refuse_entangled_holdout(work: Work) -> None:
    data = work.scenario.data
    if data.holdout == "last" and work.plan.mode != "none" and data.unit not in ("client", "user"):
        raise PrivacyConfigError(
            f"data.holdout = 'last' with unit {data.unit!r}: one record more changes which other records train, so the "
            "claim for single records would not hold",
            remedy="Set data.unit = 'user' or 'client', or data.holdout = 'none'.",
        )


def _refuse_unknown_tasks(work: Work) -> None:
    for entry in work.scenario.evaluation.tasks:
        name, _, file = entry.partition(":")
        quality.load(name)
        if work.family.row_domain is None:
            raise ConfigError(
                f"evaluation.tasks: {name!r} scores a table, and family {work.family.name!r} releases an encoder",
                remedy="Leave evaluation.tasks empty; afterwards: fedembed evaluate RELEASE --data IMAGES --task ...",
            )
        if file and not Path(file).is_file():
            raise ConfigError(f"evaluation.tasks: no file {file}", remedy="Give its path from the scenario's folder.")


def _refuse_unaccountable(work: Work) -> None:
    """Noise so small that epsilon overflows, or so large that a float32 table cannot hold it."""
    plan = work.plan
    if plan.secure is not None and not plan.secure.dimension:
        return  # sized with the rows, and refused there if it has no account
    try:
        usable = plan.noise_stddev < MAX_NOISE_STDDEV and plan.epsilon("public") >= 0
    except OverflowError:
        usable = False
    if not usable:
        raise PrivacyConfigError(
            f"noise_multiplier = {plan.noise_multiplier:g} over {plan.rounds:,} rounds is too far from any useful "
            "guarantee to be accounted or computed",
            remedy="Give privacy.epsilon instead: the noise is then found for you.",
        )
