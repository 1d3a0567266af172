"""Two lines to draw below a loss curve: what counting tokens, and counting pairs, would reach.

Both are plug-in entropies: those of the corpus' own frequencies. A plug-in entropy is too low where
the counts are thin, by about (cells seen − 1) / 2N nats (Miller 1955): at most 0.003 for pairs of
bytes on the standard library. For pairs of a BPE vocabulary of thousands it is large, and such a
bigram line is a loss that no bigram model reaches on new text.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cupel.data.tokenizer import Ids

# Above this many possible pairs, sorting those that occur is cheaper than a table of all.
_DENSE_PAIRS = 2**24


def entropies(tokens: Ids, *, vocabulary: int) -> dict[str, float]:
    """Plug-in entropies of a split (the training split, by custom) in nats a token.

    `unigram` is H(X) over all tokens, `bigram` is H(X_t | X_t−1) over all neighbouring pairs,
    those across two documents among them. Takes about 24 bytes of memory a token, and for large
    vocabularies a sort. Needs two tokens.
    """
    assert len(tokens) >= 2, len(tokens)
    ids = np.asarray(tokens, dtype=np.int64)
    pairs = ids[:-1] * vocabulary + ids[1:]
    if vocabulary**2 <= _DENSE_PAIRS:
        pair_counts = np.bincount(pairs)
    else:
        pair_counts = np.unique(pairs, return_counts=True)[1]
    first = _entropy(np.bincount(ids[:-1]))
    # The chain rule: H(X_t | X_t−1) = H(X_t−1, X_t) − H(X_t−1), over the same pairs.
    return {
        "unigram": _entropy(np.bincount(ids)),
        "bigram": max(0.0, _entropy(pair_counts) - first),
    }


def _entropy(counts: NDArray[np.integer]) -> float:
    probabilities = counts[counts > 0] / counts.sum()
    return max(0.0, float(-(probabilities * np.log(probabilities)).sum()))  # of one token, -0.0
