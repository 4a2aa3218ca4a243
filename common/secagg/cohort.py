"""The coordinator's view of who takes part: sorted clients, their adverts, the graph among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from common.secagg.adverts import Advert, Adverts
from common.secagg.graph import Graph
from common.secagg.keys import check_agreement_public, check_identity_public
from common.secagg.messages import digest
from common.secagg.terms import Terms


class Cohort:
    """Clients by position in sorted order, with what everybody computes alike from their adverts.

    Attributes:
        message: hop 1, to everyone.
        digest: of terms and message; seed of the graph.
        names, position: of each client.
        adverts: in order.
        degree, threshold: of the graph.
        of: positions of each client's neighbours, in order; the n-th holds the share at place n + 1.
    """

    def __init__(self, terms: Terms, adverts: Mapping[str, Advert]) -> None:
        self.names = tuple(sorted(adverts))
        self.size = len(self.names)
        self.position = {name: i for i, name in enumerate(self.names)}
        self.adverts = tuple(adverts[name] for name in self.names)
        self.message = Adverts.of(self.adverts).to_bytes(terms.digest)
        self.digest = digest("cohort", terms.digest, self.message)
        self.phases = tuple(phase.name for phase in terms.phases)
        self.degree, self.threshold = terms.neighbourhood(self.size)
        graph = Graph(self.names, self.degree, self.digest)
        self.of = tuple(tuple(self.position[other] for other in graph.of(name)) for name in self.names)

    def names_of(self, positions: Iterable[int]) -> tuple[str, ...]:
        """Names in the order of the positions."""
        return tuple(self.names[i] for i in positions)


def check_advert(advert: Advert) -> tuple[bytes, ...]:
    """All keys of an advert, none of which would make its neighbours give up.

    Raises:
        SecAggError: ``bad_key``: a key of small order or in another form.
    """
    check_identity_public(advert.signing)
    for key in (advert.sealing, *advert.masking):
        check_agreement_public(key)
    return advert.identity, advert.signing, advert.sealing, *advert.masking
