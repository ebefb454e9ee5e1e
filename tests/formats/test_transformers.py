"""What transformers and lm-eval make of an exported folder: logits, tokenizers, a run's loss.

pip install torch transformers lm-eval && pytest -m slow tests/formats/test_transformers.py
"""

import dataclasses
import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from chinchilla_jax.data.store import open_corpus
from chinchilla_jax.data.tokenizers import (
    bytes_tokenizer,
    sentencepiece_tokenizer,
    train_sentencepiece,
)
from chinchilla_jax.experiment.config import DataConfig
from chinchilla_jax.experiment.mup import Scaling
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.formats import huggingface, vocabulary
from chinchilla_jax.models.decoder import Decoder
from chinchilla_jax.techniques import Techniques
from chinchilla_jax.techniques.experts import Experts
from chinchilla_jax.techniques.quantisation import Quantisation
from chinchilla_jax.techniques.sparsity import Sparsity
from chinchilla_jax.training import weights
from chinchilla_jax.training.loop import train
from tests.command import call
from tests.conftest import write_sentences
from tests.formats.models import EXPERTS, drawn, tree
from tests.training.helpers import small_run

pytestmark = pytest.mark.slow
os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported
ROUTED = {"ff_size": 0, "experts": 4, "expert_picks": 1, "expert_size": 64}
SHAPES = {
    "grouped": {},
    "one_head": {"heads": 1, "kv_heads": 1, "head_size": 24},
    "all_heads": {"heads": 6, "kv_heads": 6, "head_size": 4, "depth": 3},
    "narrow_heads": {"heads": 8, "kv_heads": 2, "head_size": 2, "vocab_size": 300},
    "experts": EXPERTS,
    "one_of_many_experts": EXPERTS | {"experts": 16, "expert_picks": 1},
}


@pytest.fixture(scope="module")
def torch():
    pytest.importorskip("transformers", minversion="5.0", reason="transformers 5 is not installed")
    return pytest.importorskip("torch", reason="torch is not installed")


def opened(folder):
    """The model that transformers makes of it, with nothing missing and nothing left over."""
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


def logits(torch, model, tokens_BxS):
    with torch.no_grad():
        return model(torch.tensor(tokens_BxS.astype(np.int64))).logits.float().numpy()


def ours(of, arrays, tokens_BxS):
    decoder = Decoder(of.model, scaling=Scaling(of.base_width, of.parametrization))
    return np.asarray(jax.jit(decoder.apply)({"params": tree(arrays)}, tokens_BxS))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("base_width", [24, 64])
def test_logits_are_ours(torch, tmp_path, shape, base_width):
    of, arrays = drawn(base_width=base_width, **SHAPES[shape])
    huggingface.write(tmp_path, of, arrays)
    tokens = np.random.default_rng(2).integers(0, of.model.vocab_size, (3, 16))
    theirs = logits(torch, model := opened(tmp_path), tokens)
    expected = ours(of, arrays, tokens)
    assert np.abs(theirs - expected).max() < 1e-5 < np.abs(expected).max()
    assert type(model).__name__ == (
        "Qwen3MoeForCausalLM" if of.model.experts else "Qwen3ForCausalLM"
    )


def test_bfloat16_is_opened_as_such(torch, tmp_path):
    of, arrays = drawn("bfloat16")
    huggingface.write(tmp_path, of, arrays)
    model = opened(tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    tokens = np.random.default_rng(2).integers(0, 256, (3, 16))
    assert np.abs(logits(torch, model, tokens) - ours(of, arrays, tokens)).max() < 0.2


def test_what_transformers_saves_is_read_again_to_the_bit(torch, tmp_path):
    """Fine-tuned there, it comes back: the section of config.json is kept."""
    from chinchilla_jax.experiment import exported

    of, arrays = drawn(base_width=64, **EXPERTS)
    huggingface.write(tmp_path / "a", of, arrays)
    model = opened(tmp_path / "a")
    with torch.no_grad():
        model.model.norm.weight += 1
    model.save_pretrained(tmp_path / "b")
    assert exported.read(tmp_path / "b") == of
    assert exported.digest(tmp_path / "b") != exported.digest(tmp_path / "a")
    found = dict(huggingface.read(tmp_path / "b", of))
    arrays["final_norm/scale"] = arrays["final_norm/scale"] + np.float32(1)
    assert all(np.array_equal(found[path], array) for path, array in arrays.items())


def texts():
    random = np.random.default_rng(3)
    words = [
        "the",
        "aaaa",
        "aaab",
        "def",
        "naïve",
        "世界",
        "🙂",
        "\n",
        "\t",
        "  ",
        "x=1",
        "<0x41>",
        "é",
    ]
    for length in (0, 1, 3, 30, 300):
        for joint in ("", " ", "  "):
            yield joint.join(random.choice(words, length))


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
def test_ids_of_text_are_ours(torch, tmp_path, kind):
    from transformers import AutoTokenizer

    if kind == "bytes":
        tokenizer = bytes_tokenizer()
    else:
        documents = [text.encode() for _ in range(4) for text in texts()]
        tokenizer = sentencepiece_tokenizer(train_sentencepiece(documents, 400))
    huggingface.write(tmp_path, *drawn(vocab_size=tokenizer.vocab_size))
    vocabulary.write(tmp_path, tokenizer, 16)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == tokenizer.vocab_size
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (0, 0, 0)
    for text in texts():
        ids = theirs.encode(text)
        assert [*ids, 0] == tokenizer.encode([text.encode()]).tolist(), text
        assert theirs.decode(ids) == text
    documents = ["one.", "two"]
    assert theirs.encode("\0".join([*documents, ""])) == tokenizer.encode(
        [text.encode() for text in documents]
    ).tolist()  # fmt: skip


@pytest.mark.parametrize("tokenizer,vocab_size", [("bytes", 256), ("sentencepiece", 320)])
def test_lm_eval_finds_the_bits_per_byte_that_we_do(torch, tmp_path, tokenizer, vocab_size):
    """Of a trained run, by the commands that the program names; logits are those that it has."""
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    data = DataConfig(
        builder="local_text", path=str(tmp_path / "text"), cache=str(tmp_path / "cache"),
        tokenizer=tokenizer, vocab_size=vocab_size, validation_fraction=0.2,
    )  # fmt: skip
    (tmp_path / "text").mkdir()
    write_sentences(tmp_path / "text")
    run = small_run(
        steps=60, model={"kv_heads": 2, "vocab_size": vocab_size}, training={"data_parallel": 1}
    )
    run = dataclasses.replace(run, data=data)
    directory, out = RunDirectory(tmp_path / "runs" / "small"), tmp_path / "out"
    row = train(run, open_corpus(data, tmp_path / "cache"), directory)
    done = call("export", f"--run={directory.path}", f"--to={out}", "--lm_eval=300")
    assert done.returncode == 0, done.stderr
    ours = float(re.search(r"evaluation: ([\d.]+), on \d+ windows", done.stdout)[1])
    assert ours == pytest.approx(row["bits_per_byte"], rel=0.1)
    command = done.stdout.splitlines()[-1].split()
    more = ["--device=cpu", "--batch_size=64", f"--output_path={tmp_path / 'found'}"]
    places = {"HF_HOME": str(tmp_path / "hf"), "HF_DATASETS_OFFLINE": "1"}
    subprocess.run(
        [sys.executable, "-m", *command, *more],
        env=os.environ | places, check=True, capture_output=True, text=True,
    )  # fmt: skip
    (file,) = (tmp_path / "found").rglob("results*.json")
    found = json.loads(file.read_text())["results"]["held_out"]["bits_per_byte,none"]
    assert found == pytest.approx(ours, abs=1e-4)

    trained = weights.read(directory.path)
    decoder, used = weights.decoder_of(trained.run), weights.as_multiplied(trained)
    tokens = np.random.default_rng(4).integers(0, vocab_size, (4, 16))
    expected = np.asarray(jax.jit(decoder.apply)({"params": used}, tokens))
    assert np.abs(logits(torch, opened(out), tokens) - expected).max() < 1e-5


@pytest.mark.parametrize("name,on,model", [
    ("sparse", {"sparsity": Sparsity(level=0.75)}, {}),
    ("of four bits", {"quantisation": Quantisation(bits=4)}, {}),
    ("experts", {"experts": Experts(routed=4, balance="loss")}, ROUTED),
])  # fmt: skip
def test_what_techniques_have_made_is_opened(torch, text_corpus, tmp_path, name, on, model):
    run = small_run(steps=20, model={"kv_heads": 2} | model, training={"data_parallel": 1})
    run = dataclasses.replace(run, techniques=Techniques(**on))
    directory = RunDirectory(tmp_path / "runs" / "small")
    train(run, text_corpus, directory)
    done = call("export", f"--run={directory.path}", f"--to={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    trained = weights.read(directory.path)
    decoder, used = weights.decoder_of(trained.run), weights.as_multiplied(trained)
    tokens = np.random.default_rng(4).integers(0, 256, (4, 16))
    expected = np.asarray(jax.jit(decoder.apply)({"params": used}, tokens))
    opened_there = opened(tmp_path / "out")
    assert np.abs(logits(torch, opened_there, tokens) - expected).max() < 1e-5
    up = opened_there.state_dict().get("model.layers.0.mlp.up_proj.weight")
    if name == "sparse":
        assert (up == 0).float().mean() == pytest.approx(0.75, abs=0.01)
    if name == "of four bits":
        assert max(len(row.unique()) for row in up) <= 16
