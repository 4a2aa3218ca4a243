"""What two parties derive alike: keys for sealed shares, seeds of masks, commitments. Every input names its place."""

from __future__ import annotations

from common.secagg.keys import AgreementKey, commitment, derive
from common.secagg.messages import context


def sealing_key(shared: bytes, *, cohort: bytes, sender: str, receiver: str, salt: bytes) -> bytes:
    """The key of the one message of shares from ``sender`` to ``receiver``, from what these two ``exchange``."""
    return derive(shared, context("seal", cohort, sender.encode(), receiver.encode(), salt))


def share_context(cohort: bytes, sender: str, receiver: str) -> bytes:
    """What is authenticated beside the shares of ``sender`` for ``receiver``."""
    return context("shares", cohort, sender.encode(), receiver.encode())


def pair_seed(key: AgreementKey, public: bytes, *, view: bytes, pair: tuple[str, str]) -> bytes:
    """Seed of the mask that the client which sorts first adds and the other one takes off.

    The view holds terms (model and configuration), cohort, phase, roll and bound data: clients that were told different
    things add masks that do not cancel.
    """
    low, high = sorted(name.encode() for name in pair)
    return key.agree(public, context("pair mask", view, low, high))


def self_seed(secret: bytes, view: bytes) -> bytes:
    """Seed of a client's own mask in one view, from the secret whose shares its neighbours hold."""
    return derive(secret, context("self mask", view))


def self_commitment(secret: bytes, *, cohort: bytes, client: str, phase: str) -> bytes:
    """Commitment to the secret behind a client's own mask, for the coordinator to check what shares give back."""
    return commitment(secret, context("self mask", cohort, client.encode(), phase.encode()))
