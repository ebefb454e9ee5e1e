"""Documents that were before, in however many parts they are remembered."""

import random

import pytest

from chinchilla_jax.data import copies


@pytest.mark.parametrize("recent", [1, 7, 1 << 20])
def test_each_digest_is_new_once(monkeypatch, recent):
    monkeypatch.setattr(copies, "_RECENT", recent)
    rng = random.Random(0)
    digests = [rng.randbytes(16) for _ in range(40)] + [b"\0" * 16, b"\xff" * 16]
    asked = rng.choices(digests, k=400)
    seen, before = copies.Seen(), set()
    for digest in asked:
        assert seen.again(digest) == (digest in before)
        before.add(digest)
