"""The row domain of a run; sites make the same one, to check what a run would ask of them."""

from common.vocabulary import row_domain

__all__ = ["row_domain"]
