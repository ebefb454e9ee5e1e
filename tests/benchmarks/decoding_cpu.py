"""Speed of generation against PyTorch on the CPU, side by side in one run.

    pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
    python tests/benchmarks/decoding_cpu.py

The peer is the model of `throughput_cpu.py` in eager PyTorch, in inference mode, with keys and
values in a buffer that is written in place; the same weights and prompt, float32, the likeliest
token always, one text, as many threads. Both write the same tokens before anything is timed. They
run in processes of their own and take turns; the ratio is that of medians over turns.
"""

import argparse
import functools
import importlib.util
import statistics
import sys
import time
from typing import Any

import numpy as np
from peers import JaxTraining, Peer, process_peak_bytes, run_of, unstacked, usable_cores
from torch_peer import INSTALL, torch_decoder, torch_weights

from chinchilla_jax.experiment import config, recipe
from chinchilla_jax.experiment.mup import Scaling


class JaxDecoding(JaxTraining):
    """`training/generation.py`, as the program `generate` calls it."""

    def ready(self, shape: Any, window: int) -> tuple[Any, dict[str, np.ndarray]]:
        """The run of a model, and its weights by path."""
        import jax

        from chinchilla_jax.data.tokenizers import bytes_tokenizer
        from chinchilla_jax.experiment.sampling import Sampling
        from chinchilla_jax.models.module import path_name
        from chinchilla_jax.training import compiled, initial
        from chinchilla_jax.training.generation import Generator
        from chinchilla_jax.training.weights import Trained

        run = run_of(shape, 1, window, {"layers": "unrolled"})
        made = compiled.compiled_for(run)
        with jax.set_mesh(made.mesh):
            state = initial.initial_state(made.method, made.shardings, run.seed)
        trained = Trained(run, state.params, {}, bytes_tokenizer())
        self._generator = Generator(trained, made.mesh, Sampling(temperature=0.0))
        params = {
            path_name(path): np.asarray(leaf).copy()
            for path, leaf in jax.tree.leaves_with_path(state.params)
        }
        return run, unstacked(params)

    def write(self, prompt: np.ndarray, count: int) -> tuple[float, float, list[int]]:
        """Seconds to the first token and for `count` more, and all of them."""
        begin = time.perf_counter()
        token_B, cache = self._generator.prompted([prompt], 0, count)
        tokens = np.asarray(token_B).tolist()
        first = time.perf_counter()
        while len(tokens) <= count:
            more = count + 1 - len(tokens)
            new, token_B, cache = self._generator.continued(token_B, cache, len(tokens), more)
            tokens += np.asarray(new)[0, :more].tolist()
        return first - begin, time.perf_counter() - first, tokens


class TorchDecoding:
    """The same in PyTorch.

    Args:
      threads: of the process.
    """

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)

    def build(self, run: config.RunConfig, params: dict[str, np.ndarray]) -> int:
        """Builds the model with our weights; its parameters, counted."""
        self._scale = Scaling(run.optimizer.base_width).base(run.model) ** 0.5
        self._model = torch_decoder(run.model, run.sequence_length, self._scale).eval()
        self._model.load_state_dict(torch_weights(params))
        self._shape, self._window = run.model, run.sequence_length
        return sum(parameter.numel() for parameter in self._model.parameters())

    def write(self, prompt: np.ndarray, count: int) -> tuple[float, float, list[int]]:
        """Seconds to the first token and for `count` more, and all of them."""
        import torch

        shape = self._shape
        kept = torch.zeros(shape.depth, 2, 1, shape.heads, self._window, shape.head_size)
        with torch.inference_mode():
            begin = time.perf_counter()
            token = self._passed(torch.tensor(prompt)[None], kept, 0)
            tokens = [int(token)]
            first = time.perf_counter()
            for i in range(count):
                token = self._passed(token[None], kept, len(prompt) + i)
                tokens.append(int(token))
            return first - begin, time.perf_counter() - first, tokens

    def _passed(self, tokens: Any, kept: Any, begin: int) -> Any:
        """The likeliest token after `tokens` [1, S], which stand from position `begin` on."""
        import torch
        from torch.nn import functional as F

        model, shape, count = self._model, self._shape, tokens.shape[1]
        end = begin + count
        cos, sin = model.cos[begin:end], model.sin[begin:end]

        def rotate(x: Any) -> Any:
            a, b = x.chunk(2, dim=-1)
            return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

        x = model.embedding(tokens) * self._scale
        for layer, (keys, values) in zip(model.layers, kept, strict=True):
            a = layer.attention
            y = a.query_key_value(layer.attention_norm(x))
            q, k, v = y.view(1, count, 3, shape.heads, shape.head_size).unbind(2)
            q, k = (rotate(n(z.transpose(1, 2))) for n, z in ((a.query_norm, q), (a.key_norm, k)))
            keys[:, :, begin:end], values[:, :, begin:end] = k, v.transpose(1, 2)
            y = F.scaled_dot_product_attention(
                q, keys[:, :, :end], values[:, :, :end], is_causal=count > 1
            )
            x = x + a.out(y.transpose(1, 2).reshape(1, count, -1))
            x = x + layer.feed_forward(layer.feed_forward_norm(x))
        return model.readout(model.final_norm(x[:, -1])).argmax(-1)

    def peak_bytes(self) -> int:
        """The most memory that the process has had."""
        return process_peak_bytes()


def compare(ours: Peer, theirs: Peer, width: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Speeds of both at one width, after a check that they write the same."""
    shape = recipe.shape_for_width(width, config.RecipeConfig(), 256)
    run, params = ours.call("ready", shape, arguments.window)
    theirs.call("build", run, params)
    prompt = np.random.default_rng(0).integers(1, 256, arguments.window // 2)
    count = arguments.window // 2
    *_, our_tokens = ours.call("write", prompt, count)
    *_, their_tokens = theirs.call("write", prompt, count)
    if our_tokens != their_tokens:
        raise SystemExit(f"width {width}: {our_tokens} here, {their_tokens} in PyTorch")
    seconds: dict[Peer, list[tuple[float, float]]] = {ours: [], theirs: []}
    for _ in range(arguments.turns):
        for peer, values in seconds.items():
            values.append(peer.call("write", prompt, count)[:2])
    first, later = (
        [statistics.median(times[i] for times in values) for values in seconds.values()]
        for i in range(2)
    )
    least = [min(times[1] for times in values) for values in seconds.values()]
    return {
        "width": width,
        "ours": count / later[0],
        "pytorch": count / later[1],
        "ratio": later[1] / later[0],
        "least": least[1] / least[0],
        "first": first[1] / first[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--turns", type=int, default=9)
    arguments = parser.parse_args()
    if importlib.util.find_spec("torch") is None:
        sys.exit(f"PyTorch is not installed: {INSTALL}")
    cores = usable_cores(arguments.threads)
    ours = Peer(JaxDecoding, cores)
    theirs = Peer(functools.partial(TorchDecoding, arguments.threads), cores)
    print(f"{arguments.threads} threads, window {arguments.window}, half of it prompt")
    print("width  ours tokens/s  pytorch tokens/s  ratio  of the least times  first token")
    for width in arguments.widths:
        row = compare(ours, theirs, width, arguments)
        print(
            f"{row['width']:5d}  {row['ours']:13,.0f}  {row['pytorch']:16,.0f}  {row['ratio']:5.2f}"
            f"  {row['least']:18.2f}  {row['first']:11.2f}"
        )
    ours.close()
    theirs.close()


if __name__ == "__main__":
    main()
