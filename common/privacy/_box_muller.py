"""Box and Muller's transform (1958) on 53-bit uniforms, in buffers that stay in a core's own cache."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

BITS = 53
ULP = 2.0**-BITS
CHUNK = 32_768  # samples: words, radii and angles of one chunk stay in the core's own cache

Words = NDArray[np.uint64]


class BoxMuller:
    """Turns pairs of random words into pairs of normals; holds buffers for up to ``pairs`` of them.

    Every value depends on its own two words alone, bit for bit, wherever in a batch they stand.
    """

    def __init__(self, pairs: int) -> None:
        import torch  # its vectorised log, sin and cos are several times faster than numpy's

        self._words = np.empty(2 * pairs, dtype=np.uint64)
        self._bits = torch.from_numpy(self._words.view(np.int64))
        self._values = torch.empty(3 * pairs, dtype=torch.float64)

    def __call__(self, radius_words: Words, angle_words: Words, stddev: float) -> tuple[Tensor, Tensor]:
        """``stddev * sqrt(-2 ln u)`` times the cosine and the sine of ``2 pi v``, float64, valid until the next call.

        Args:
            radius_words: 64 random bits for each u = (k + 1) 2^-53 with k their upper 53 bits: u lies in (0, 1], so
                the logarithm is finite for every bit pattern.
            angle_words: the same for each v = k 2^-53.
        """
        import torch

        n = len(radius_words)
        np.right_shift(radius_words, np.uint64(64 - BITS), out=self._words[:n])
        np.right_shift(angle_words, np.uint64(64 - BITS), out=self._words[n : 2 * n])
        radius, angle, cosine = (self._values[i * n : (i + 1) * n] for i in range(3))
        self._values[: 2 * n].copy_(self._bits[: 2 * n])
        radius.add_(1.0).mul_(ULP).log_().mul_(-2.0).sqrt_().mul_(stddev)
        torch.cos(angle.mul_(2.0 * math.pi * ULP), out=cosine)
        return cosine.mul_(radius), angle.sin_().mul_(radius)
