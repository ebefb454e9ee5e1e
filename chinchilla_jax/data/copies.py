"""Which documents have been before: a digest of each, in memory that grows by eight bytes.

Half of a 128-bit digest: of a hundred million documents none is taken for another but by a chance
of 1 in 3,700.
"""

import numpy as np

_RECENT = 1 << 20  # digests that are kept one by one, some 80 bytes each


class Seen:
    """The documents that were asked for so far."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._earlier = np.empty(0, np.uint64)  # in order

    def again(self, digest: bytes) -> bool:
        """Whether a document of this digest was asked for before; from now on it was."""
        key = int.from_bytes(digest[:8], "big")
        if key in self._recent or self._is_earlier(key):
            return True
        self._recent.add(key)
        if len(self._recent) >= _RECENT:
            recent = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._earlier = np.sort(np.concatenate([self._earlier, recent]), kind="stable")
            self._recent.clear()
        return False

    def _is_earlier(self, key: int) -> bool:
        if not len(self._earlier):
            return False
        place = int(np.searchsorted(self._earlier, np.uint64(key)))
        return place < len(self._earlier) and int(self._earlier[place]) == key
