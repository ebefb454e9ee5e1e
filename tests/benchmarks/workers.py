"""A CPU sweep's choice: one process per core, or one process with all of them.

    python tests/benchmarks/workers.py

n processes of one thread, each pinned to a core as `chinchilla_jax.sweep` pins its workers, train
a model each; then one process of n threads trains the same model. Both take turns in one run, on
the same compiled step; speeds are tokens per second of all processes together, medians over turns.
"""

import argparse
import statistics

from peers import JaxTraining, Peer, usable_cores

from chinchilla_jax.experiment import config, recipe


def speed(peers: list[Peer], steps: int, tokens: int) -> float:
    """Tokens per second of all `peers` together, each doing `steps` at the same time."""
    for peer in peers:
        peer.start("train", steps)
    return sum(steps * tokens / peer.result()[0] for peer in peers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8, help="sequences a step")
    parser.add_argument("--sequence", type=int, default=64, help="tokens a sequence")
    parser.add_argument("--turns", type=int, default=7, help="of which the median is taken")
    parser.add_argument("--seconds", type=float, default=0.7, help="of one turn")
    arguments = parser.parse_args()
    cores = usable_cores(arguments.workers)
    setups = {"pinned": [Peer(JaxTraining, [core]) for core in cores]}
    setups["together"] = [Peer(JaxTraining, cores)]
    tokens = arguments.batch * arguments.sequence
    print(f"{arguments.workers} cores, {arguments.batch} x {arguments.sequence} tokens a step")
    print(" width   tokens/s: one thread each   one process   ratio")
    for width in arguments.widths:
        shape = recipe.shape_for_width(width, config.RecipeConfig(), 256)
        for peers in setups.values():
            for peer in peers:
                peer.start("build", shape, arguments.batch, arguments.sequence)
            for peer in peers:
                peer.result()
        steps = {}
        for name, peers in setups.items():  # as many steps as fill a turn
            speed(peers, 16, tokens)
            rate = speed(peers, 16, tokens) / len(peers)
            steps[name] = max(4, int(arguments.seconds * rate / tokens))
        speeds: dict[str, list[float]] = {name: [] for name in setups}
        for _ in range(arguments.turns):
            for name, peers in setups.items():
                speeds[name].append(speed(peers, steps[name], tokens))
        pinned, together = (statistics.median(speeds[name]) for name in ("pinned", "together"))
        print(f"{width:6d} {pinned:26,.0f} {together:13,.0f} {pinned / together:6.2f}x", flush=True)


if __name__ == "__main__":
    main()
