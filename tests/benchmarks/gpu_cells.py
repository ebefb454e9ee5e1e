"""Small models that share a GPU: tokens a second of 1, 2, 4 and 8 processes together.

    python tests/benchmarks/gpu_cells.py                   # under a minute on a GPU
    python tests/benchmarks/gpu_cells.py --platform=cpu    # tiny, anywhere

What `sweep --cells_per_device` does to throughput, without the sweep: as many processes as asked
train a model each, on the same compiled step. All are built first; while fewer are measured the
others wait. On a GPU processes take turns, unless its owner has NVIDIA's MPS run there, so that
what they gain is the time in which one alone leaves it idle.
"""

import argparse
import os
import statistics
from pathlib import Path

from peers import JaxTraining, Peer
from results import save
from throughput import SIZES
from workers import speed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--platform", choices=["cpu", "gpu"], default="gpu")
    parser.add_argument("--size", choices=list(SIZES), default="30m")
    parser.add_argument("--batch", type=int, default=4, help="sequences a step")
    parser.add_argument("--cells", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--turns", type=int, default=3, help="of which the median is taken")
    parser.add_argument("--seconds", type=float, default=1.0, help="of one turn, about")
    parser.add_argument("--out", type=Path, help="a JSON file of the figures")
    arguments = parser.parse_args()
    cores: list[int] = []
    if arguments.platform == "cpu":
        cores = sorted(os.sched_getaffinity(0))
    size = SIZES[arguments.size]
    peers = [Peer(JaxTraining, cores)]
    kind, dtype, _ = peers[0].call("device", "auto")
    build = ("build", size.shape, arguments.batch, size.sequence)
    peers[0].call(*build)
    peers[0].call("train", 4)  # the others find what it compiled, where a cache is set
    peers += [Peer(JaxTraining, cores) for _ in range(max(arguments.cells) - 1)]
    for peer in peers[1:]:
        peer.start(*build)
    for peer in peers[1:]:
        peer.result()
    tokens = arguments.batch * size.sequence
    speed(peers, 4, tokens)
    print(f"{kind}: {arguments.size}, {arguments.batch} x {size.sequence} tokens a step, {dtype}")
    print("cells   tokens/s together   of one alone")
    rates: dict[str, float] = {}
    for count in arguments.cells:
        some = peers[:count]
        steps = max(4, int(arguments.seconds * speed(some, 8, tokens) / (count * tokens)))
        values = [speed(some, steps, tokens) for _ in range(arguments.turns)]
        rates[str(count)] = statistics.median(values)
        ratio = rates[str(count)] / rates[str(arguments.cells[0])]
        print(f"{count:5d} {rates[str(count)]:19,.0f} {ratio:13.2f}x", flush=True)
        batch = f"{arguments.batch} x {size.sequence}"
        save(arguments.out, device=kind, dtype=dtype, size=arguments.size, batch=batch, rates=rates)


if __name__ == "__main__":
    main()
