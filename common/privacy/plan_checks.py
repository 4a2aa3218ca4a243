"""What a plan refuses, and the words and numbers it takes from the settings."""

from __future__ import annotations

from common.config import FederationConfig, PrivacyConfig, TrainingConfig
from common.errors import PrivacyConfigError
from common.privacy.clipping import check_clip_norm
from common.privacy.grid import MECHANISMS, SecureSum
from common.privacy.row_votes import RowVotes

_ADD_REMOVE_CLIENT = "add or remove everything one client contributes (how many clients are enrolled is public)"
_ADD_REMOVE_UNIT = "add or remove one unit of a client (that the client takes part is not hidden)"
_ZERO_OUT_CLIENT = "zero-out: a client's update is replaced by zero (that it takes part is not hidden)"


def clip_norm_of(privacy: PrivacyConfig, natural_clip: float | None) -> float:
    """The configured bound on a contribution, or the family's own. Raises ``PrivacyConfigError`` without one."""
    clip_norm = privacy.l2_clip_norm if privacy.l2_clip_norm is not None else natural_clip
    if clip_norm is None:
        raise PrivacyConfigError(
            "privacy.l2_clip_norm is missing: this family has no natural bound on a contribution",
            remedy="Set privacy.l2_clip_norm, for example to the median norm seen on public data.",
        )
    return check_clip_norm(clip_norm)


def client_rate_of(federation: FederationConfig) -> float:
    """Chance of a client in a round. Raises ``PrivacyConfigError`` for a rate without Poisson sampling."""
    if federation.sampling == "poisson":
        return federation.rate
    if federation.rate != 1.0:
        raise PrivacyConfigError(
            f"federation.rate = {federation.rate:g} has no effect with sampling = 'full'",
            remedy="Set federation.sampling = 'poisson', or leave the rate at 1.",
        )
    return 1.0


def adjacency_of(mode: str, client: bool) -> str:
    """Which two data sets a mode's guarantee compares, in words."""
    if not client:
        return _ADD_REMOVE_UNIT
    return _ADD_REMOVE_CLIENT if mode == "central" else _ZERO_OUT_CLIENT


def refuse_unproven(mode: str, training: TrainingConfig, *, unit: str, additive: bool) -> None:
    """Raise ``PrivacyConfigError``, with the alternative, where clipping does not bound what one unit changes."""
    if mode == "example":
        _refuse_example(training, unit)
    elif unit != "client" and not additive:
        raise PrivacyConfigError(
            f"mode {mode!r} cannot protect the unit {unit!r} with this family: its local steps mix the units, so "
            "clipping the client's update does not bound what one unit changes",
            remedy="Set data.unit = 'client', or privacy.mode = 'example', or use a family that sums one contribution "
            "per unit (spectral).",
        )


def _refuse_example(training: TrainingConfig, unit: str) -> None:
    if unit == "client":
        raise PrivacyConfigError(
            "mode 'example' clips single units inside a client, so it cannot protect the whole client",
            remedy="Set data.unit to a group of records (record, sentence, document), or privacy.mode = 'local'.",
        )
    if training.local_steps < 1:
        raise PrivacyConfigError(
            "mode 'example' needs training.local_steps: a number of steps that follows from the size of a client's "
            "data would tell that size and cannot be accounted in advance",
            remedy="Set training.local_steps to the same public number for every client.",
        )
    if not training.unit_rate > 0:
        raise PrivacyConfigError(
            "mode 'example' needs training.unit_rate > 0: the public chance that a unit enters a step; batch_size "
            "divided by a client's own number of units would be private",
            remedy="Set training.unit_rate, for example batch_size / a public guess of the units per client.",
        )


def mechanism_of(privacy: PrivacyConfig) -> str:
    """The configured noise mechanism, or the default of the mode.

    Raises:
        PrivacyConfigError: mode distributed with noise whose shares have no account.
    """
    if privacy.mode != "distributed":
        return privacy.mechanism or "gaussian"
    chosen = privacy.mechanism or MECHANISMS[0]
    if chosen == "gaussian":
        raise PrivacyConfigError(
            "mode 'distributed' adds integers modulo 2^bits, and continuous Gaussian noise has none; rounded normals "
            "are not discrete Gaussians, and their sum has no account",
            remedy="Leave privacy.mechanism out (skellam), or set 'discrete_gaussian'.",
        )
    return chosen


def secure_sum_of(privacy: PrivacyConfig, federation: FederationConfig) -> SecureSum | None:
    """The terms of the secure sum in mode distributed, of a dimension not known yet; ``None`` in the other modes.

    Raises:
        PrivacyConfigError: settings that contradict one another, or belong to another mode.
    """
    if privacy.mode != "distributed":
        if federation.secure_aggregation != "none":
            raise PrivacyConfigError(
                f"secure aggregation is offered in mode 'distributed' alone, not in mode {privacy.mode!r}",
                remedy="Set privacy.mode = 'distributed', or federation.secure_aggregation = 'none'.",
            )
        for name in ("bits", "max_clients", "colluders", "roster"):
            if getattr(federation, name):
                raise PrivacyConfigError(
                    f"federation.{name} has no effect in mode {privacy.mode!r}",
                    remedy=f"Take federation.{name} out, or set privacy.mode = 'distributed'.",
                )
        return None
    if federation.max_clients == 0:
        raise PrivacyConfigError(
            "mode 'distributed' needs federation.max_clients: the largest cohort whose sum may not overflow",
            remedy="Set federation.max_clients to the number of clients that may enrol, and not much more.",
        )
    return SecureSum(
        aggregation=federation.secure_aggregation,
        max_clients=federation.max_clients,
        survivors=federation.min_clients,
        colluders=federation.colluders,
        roster=bool(federation.roster),
        bits=federation.bits,
    )


def row_votes_of(privacy: PrivacyConfig, federation: FederationConfig, *, unit: str, additive: bool) -> RowVotes | None:
    """The votes on rows of mode distributed, of a row domain not known yet; ``None`` where no client votes.

    Raises:
        PrivacyConfigError: rows are selected where no guarantee or no use is known, or settings without effect.
    """
    selected = federation.rows == "selected"
    if selected and privacy.mode not in ("example", "distributed"):
        raise PrivacyConfigError(
            "federation.rows = 'selected' is offered in the modes 'example' and 'distributed' alone",
            remedy="Set federation.rows = 'dense', or one of these modes.",
        )
    if not selected or privacy.mode != "distributed":
        _refuse_votes_without_effect(federation)
        return None
    if unit != "client":
        raise PrivacyConfigError(
            f"rows = 'selected' in mode 'distributed' protects the unit 'client' alone, not {unit!r}: a client caps "
            "the votes of all its units together, so which rows one unit's votes push out depends on the others",
            remedy="Set data.unit = 'client', or federation.rows = 'dense'.",
        )
    if additive:
        raise PrivacyConfigError(
            "this family's step reads a statistic of every row, and a row that is not selected would become zero",
            remedy="Set federation.rows = 'dense', or use a family with local steps (word2vec, useritem_bpr).",
        )
    return RowVotes(
        max_selected_rows=federation.max_selected_rows,
        rows_per_client=federation.rows_per_client,
        select_every=federation.select_every,
        min_contributors=federation.min_contributors,
    )


def _refuse_votes_without_effect(federation: FederationConfig) -> None:
    unset = {"max_selected_rows": 0, "rows_per_client": 0, "min_contributors": 1, "select_every": 1}
    for name, value in unset.items():
        if getattr(federation, name) != value:
            raise PrivacyConfigError(
                f"federation.{name} has an effect in mode 'distributed' with rows = 'selected' alone",
                remedy=f"Take federation.{name} out.",
            )
