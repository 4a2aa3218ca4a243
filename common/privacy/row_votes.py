"""The public terms of votes on rows under secure aggregation: bits, noise shares, threshold, from one set of numbers.

Every client votes 1 for at most m of the rows that its units hold; the secure sum of all votes, with noise on every
row, says which rows the round's values are for. docs/sensitivity.md section 12 derives what is used here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from common.errors import PrivacyConfigError
from common.privacy.grid import MOST_SHARE_VARIANCE, SecureSum, few_bits, skellam_reach
from common.update import ParameterSpec

if TYPE_CHECKING:
    from dp_accounting import DpEvent

LEAST_BITS, MOST_BITS = 8, 32
MOST_ROWS = 2**31 - 1
_LEAST_MEAN = 1e-3  # of a share: what exact Skellam noise takes
_LOG_RELEASE = 20 * math.log(2)  # no row of a release is beyond the bits, but with a probability of 2^-20
_STDDEVS = (1e-3, 0.999e6)  # of all noise, in votes: what events of integer noise take


@dataclass(frozen=True)
class RowVotes:
    """What is public about the selection of rows in mode distributed.

    Attributes:
        max_selected_rows: K: a client sends values for so many rows, whatever is selected.
        rows_per_client: m: votes of one client.
        select_every: R: rounds 1, 1 + R, 1 + 2 R, ... vote; 0: the first alone.
        min_contributors: added to the threshold on the noised count; rows with fewer votes pass with a small chance.
        rows: V, of the row domain; 0 while it is not known.

    Raises:
        PrivacyConfigError: a number is out of range.
    """

    max_selected_rows: int
    rows_per_client: int
    select_every: int = 1
    min_contributors: int = 1
    rows: int = 0

    def __post_init__(self) -> None:
        if self.max_selected_rows < 1 or self.rows_per_client < 1:
            raise PrivacyConfigError(
                "rows = 'selected' in mode 'distributed' needs federation.max_selected_rows and rows_per_client: how "
                "many rows get values in a round, and how many a client votes for",
                remedy="Set both; `fedembed plan` tells what they select and cost.",
            )
        if self.min_contributors < 1 or self.select_every < 0 or not 0 <= self.rows <= MOST_ROWS:
            raise PrivacyConfigError("a selection of rows needs min_contributors of 1 or more and select_every >= 0")
        if self.rows and max(self.max_selected_rows, self.rows_per_client) > self.rows:
            raise PrivacyConfigError(
                f"max_selected_rows = {self.max_selected_rows} and rows_per_client = {self.rows_per_client} must not "
                f"exceed the {self.rows} rows that there are",
                remedy="Lower them, or leave federation.rows at 'dense'.",
            )

    def selects(self, round_number: int) -> bool:
        """Whether round ``round_number`` (from 1) begins with votes."""
        if round_number == 1 or self.select_every == 0:
            return round_number == 1
        return (round_number - 1) % self.select_every == 0

    def selections(self, rounds: int) -> int:
        """How many of the first ``rounds`` rounds begin with votes."""
        if rounds <= 0 or self.select_every == 0:
            return min(max(rounds, 0), 1)
        return -(-rounds // self.select_every)


@dataclass(frozen=True)
class VoteGrid:
    """Everything about the integers of one sum of votes; the noise is Skellam, whatever the values' is.

    Attributes:
        share: mean of each Poisson of one client's noise, on every row.
        reach: what the noise of the largest cohort stays within, on either side.
        bits: of a masked vote: the fewest that hold ``max_clients`` votes and the noise on both sides.
        threshold: noised votes that select a row.
    """

    terms: RowVotes
    secure: SecureSum
    share: float
    reach: int
    bits: int
    threshold: float

    @property
    def stddev(self) -> float:
        """Standard deviation, in votes, of the noise of the T - c shares that are accounted."""
        return self.noise_stddev(self.secure.honest)

    def noise_stddev(self, clients: int) -> float:
        """Standard deviation, in votes, of the noise in a sum over ``clients``."""
        return math.sqrt(2 * self.share * clients)

    def event(self) -> DpEvent:
        """The whole noised vector of votes, with noise of exactly T - c shares.

        A client is at most m ones and else zeros: its L2 norm is sqrt(m) and its L1 norm m, exactly.
        """
        return _event(self.terms.rows_per_client, 2 * self.share * self.secure.honest)


def event_at(terms: RowVotes, noise_multiplier: float) -> DpEvent:
    """What votes would cost at any noise multiplier: for calibration, where shares need not be drawn."""
    root = math.sqrt(terms.rows_per_client)
    held = min(max(noise_multiplier * root, _STDDEVS[0]), _STDDEVS[1])  # beyond, the search meets a constant
    return _event(terms.rows_per_client, held**2)


@functools.lru_cache(maxsize=64)
def vote_grid(terms: RowVotes, secure: SecureSum, *, noise_multiplier: float, threshold: float) -> VoteGrid:
    """The one grid of these terms.

    Args:
        noise_multiplier: standard deviation of the accounted noise over sqrt(m).
        threshold: in such standard deviations, above ``min_contributors``.

    Raises:
        PrivacyConfigError: the row domain is not known yet, or the noise cannot be drawn or does not fit.
    """
    if not terms.rows:
        raise PrivacyConfigError("the row domain is not known yet, so this plan accounts no votes")
    share = few_bits(noise_multiplier**2 * terms.rows_per_client / (2 * secure.honest))
    if not _LEAST_MEAN <= share <= MOST_SHARE_VARIANCE / 2:
        raise PrivacyConfigError(
            f"the votes' noise is {noise_multiplier:g} times sqrt({terms.rows_per_client}) in all, and one of "
            f"{secure.honest} shares of it cannot be drawn",
            remedy="Change privacy.selection_ratio or federation.rows_per_client.",
        )
    reach = skellam_reach(2 * share * secure.max_clients, math.log(2 * terms.rows) + _LOG_RELEASE)
    bits = max(LEAST_BITS, (secure.max_clients + 2 * reach).bit_length())
    if bits > MOST_BITS:
        raise PrivacyConfigError(f"the votes of {secure.max_clients} clients and their noise need more than 32 bits")
    stddev = math.sqrt(2 * share * secure.honest)
    return VoteGrid(terms, secure, share, reach, bits, terms.min_contributors + threshold * stddev)


def slot_specs(specs: Sequence[ParameterSpec], terms: RowVotes) -> tuple[ParameterSpec, ...]:
    """What is summed in place of ``specs``: K slots of every table, and the dense parameters as they are.

    Raises:
        PrivacyConfigError: a table has other rows than those that are voted on.
    """
    if any(s.is_table and s.shape[0] != terms.rows for s in specs):
        raise PrivacyConfigError("rows are selected for tables over one row domain alone")
    slots = terms.max_selected_rows
    return tuple(replace(s, shape=(slots, *s.shape[1:])) if s.is_table else s for s in specs)


def _event(most_votes: int, variance: float) -> DpEvent:
    from common.privacy.integer_events import SkellamDpEvent

    root = math.sqrt(most_votes) * (1 + 2.0**-50)  # rounded up, and never above the L1 norm
    return SkellamDpEvent(variance=variance, l1_sensitivity=max(float(most_votes), root), l2_sensitivity=root)
