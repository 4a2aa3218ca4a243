"""How large the messages of a round can be, from its terms alone: what both sides agree to send and to take in."""

from __future__ import annotations

from common.secagg.encoding import pack
from common.secagg.graph import COMPLETE_UP_TO
from common.secagg.keys import KEY_BYTES, SIGNATURE_BYTES
from common.secagg.messages import HASH_BYTES, SALT_BYTES, sealed_bytes
from common.secagg.packing import packed_size
from common.secagg.shamir import SHARE_BYTES
from common.secagg.terms import MOST_NAME_BYTES, PhaseTerms, Terms

FRAME_BYTES = 256  # around one client's answer: its lengths and status, and the name of the run; rounded up

_FIELDS = len(pack(*[b""] * 5)) + len(b"confirmation")  # what stands around the fields of any message


def vector_bytes(phase: PhaseTerms) -> int:
    """Bytes of one client's answer with the vector of a phase: header, body and frame."""
    return packed_size(phase.length, phase.bits) + _FIELDS + HASH_BYTES + FRAME_BYTES


def answer_bytes(terms: Terms, cohort: int) -> int:
    """Most bytes of one client's answer at any other hop, in a cohort of this size: a reveal with the next advert too.

    Its neighbours are at most those of a complete graph, where that is small, or those of the terms and one.
    """
    phases, neighbours = len(terms.phases), min(max(COMPLETE_UP_TO, terms.degree + 1), max(cohort - 1, 0))
    advert = _FIELDS + MOST_NAME_BYTES + (3 + phases) * KEY_BYTES + SIGNATURE_BYTES
    shares = _FIELDS + HASH_BYTES * (1 + phases) + SALT_BYTES + neighbours * sealed_bytes(phases)
    reveal = _FIELDS + HASH_BYTES + neighbours * SHARE_BYTES
    return max(shares, reveal + advert) + FRAME_BYTES
