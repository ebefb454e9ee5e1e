"""What llama.cpp itself makes of `model.gguf`: chances of the next token, and ids of text.

pip install xllamacpp && pytest -m slow tests/formats/test_llama_cpp.py
"""

import jax
import numpy as np
import pytest

from chinchilla_jax.data.tokenizers import (
    bytes_tokenizer,
    sentencepiece_tokenizer,
    train_sentencepiece,
)
from chinchilla_jax.experiment.mup import Scaling
from chinchilla_jax.formats import gguf
from chinchilla_jax.models.decoder import Decoder
from tests.formats.models import drawn, tree

TEXTS = ("a", "the model", "x = 1\n  y", "naïve 世界")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
def test_it_predicts_what_ours_does(tmp_path, kind):
    xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
    if kind == "bytes":
        tokenizer = bytes_tokenizer()
    else:
        documents = [" ".join(TEXTS[i % 4] * k for k in range(9)).encode() for i in range(40)]
        tokenizer = sentencepiece_tokenizer(train_sentencepiece(documents, 300))
    of, arrays = drawn(vocab_size=310)
    # Of a token that is no whole character the server tells no chances: those are not likely here.
    for number in range(310):
        spelled = tokenizer.decode([number]) if 0 < number < tokenizer.vocab_size else b""
        if not spelled.isascii() or not spelled:
            arrays["readout"][:, number] *= 0.02
    gguf.write(tmp_path, of, arrays, tokenizer)
    settings = xllamacpp.CommonParams()
    settings.model.path = str(tmp_path / "model.gguf")
    settings.n_ctx, settings.n_parallel, settings.port, settings.warmup = 32, 1, 0, False
    server = xllamacpp.Server(settings)
    decoder = Decoder(of.model, scaling=Scaling(of.base_width, of.parametrization))
    for text in TEXTS:
        ids = [0, *tokenizer.encode([text.encode()])[:-1].tolist()]
        assert len(ids) < 16
        logits = decoder.apply({"params": tree(arrays)}, np.array([ids]))
        ours = np.asarray(jax.nn.log_softmax(logits[0, -1]))
        for prompt in (ids, text):
            asked = {"prompt": prompt, "n_predict": 1, "n_probs": 9, "temperature": -1.0}
            (answer,) = server.handle_completions(asked)["choices"]
            (found,) = answer["logprobs"]["content"]
            # Its cache is of float16.
            assert [ours[each["id"]] for each in found["top_logprobs"]] == pytest.approx(
                [each["logprob"] for each in found["top_logprobs"]], abs=5e-3
            ), text
            assert found["id"] == ours.argmax()
