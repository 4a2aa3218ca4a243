"""A starting matrix from public text: where the coordinator looks before any client has said anything."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.public_text import stdlib_documentation
from common.table import RowDomain
from common.text import words

WINDOW_WORDS = 40
_DENSE_ROWS = 1500


def public_start(domain: RowDomain, dimension: int) -> NDArray[np.float64]:
    """Leading eigenvectors of the positive pointwise mutual information of the standard library's documentation.

    Entries count windows of 40 words that hold both rows (Levy and Goldberg 2014, section 3.1, with windows for
    contexts); columns carry the square root of their eigenvalue. Shape (V, min(dimension, V)).
    """
    from scipy import sparse

    flat: list[int] = []
    sizes = [0]
    for _, text in stdlib_documentation():
        found = words(text)
        for start in range(0, len(found), WINDOW_WORDS):
            known = {domain.row_of[word] for word in found[start : start + WINDOW_WORDS] if word in domain.row_of}
            flat.extend(sorted(known))
            sizes.append(len(flat))
    shape = (len(sizes) - 1, len(domain))
    holds = sparse.csr_array((np.ones(len(flat)), np.array(flat, dtype=np.int64), np.array(sizes)), shape=shape)
    together = sparse.coo_array(holds.T @ holds)
    apart = together.row != together.col
    row, column, count = together.row[apart], together.col[apart], together.data[apart]
    total = np.bincount(row, weights=count, minlength=len(domain))
    information = np.maximum(np.log(count * total.sum() / (total[row] * total[column])), 0.0)
    matrix = sparse.csr_array((information, (row, column)), shape=(len(domain), len(domain)))
    values, vectors = _leading(matrix, min(dimension, len(domain)))
    return vectors * np.sqrt(np.maximum(values, 0.0))


def _leading(matrix: object, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ``count`` largest eigenvalues, descending, and their vectors with the largest entry positive."""
    from scipy.sparse.linalg import eigsh

    size = matrix.shape[0]  # type: ignore[attr-defined]
    if size <= _DENSE_ROWS or count >= size - 1:
        values, vectors = np.linalg.eigh(matrix.toarray())  # type: ignore[attr-defined]
    else:
        values, vectors = eigsh(matrix, k=count, which="LA", v0=np.ones(size))
    order = np.argsort(-values, kind="stable")[:count]
    vectors = vectors[:, order]
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(count)])
    return values[order], vectors * np.where(signs == 0, 1.0, signs)
