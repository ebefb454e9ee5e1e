"""Made-up runs whose law is known."""

import numpy as np

from chinchilla_jax.techniques.routing import CLARK, LUDZIEJEWSKI, TIAN
from chinchilla_jax.techniques.teachers import STUDENT
from chinchilla_jax.techniques.transfer import TEXT


def law_runs(seed=0, count=90):
    """Columns for every law, varied independently so that each law can be identified."""
    generator = np.random.default_rng(seed)
    params = 10 ** generator.uniform(7, 10, count)
    tokens = 10 ** generator.uniform(8.5, 11.5, count)
    sparsity = generator.choice([0.0, 0.5, 0.75, 0.875], count)
    return {
        "params": params,
        "tokens": tokens,
        "flops": 6 * params * tokens,
        "unique_tokens": tokens / 10 ** generator.uniform(0, 1.5, count),
        "sparsity": sparsity,
        "nonzero_params": params,
        "params_average": params,
        "width": 2 ** generator.uniform(7, 13, count),
        "depth": 2 ** generator.uniform(1, 7, count),
        "bits": generator.choice([2.0, 3.0, 4.0, 6.0, 8.0, 32.0], count),
        "group": generator.choice([32.0, 64.0, 128.0, 256.0], count),
        "teacher_loss": generator.uniform(1.8, 3.2, count),
        "dense_loss": generator.uniform(1.9, 2.8, count),
        "experts": 2.0 ** generator.integers(0, 10, count),
        "params_active": params,
        "active_ratio": 2.0 ** -generator.uniform(0, 7, count),
        "granularity": 2.0 ** generator.integers(0, 6, count),
        "pretrained_tokens": generator.choice([0.0, 3e10], count),
    }


TRUTH = {
    "chinchilla": {"E": 1.7, "A": 406.0, "B": 411.0, "alpha": 0.34, "beta": 0.28},
    "kaplan": {"alpha_N": 0.076, "alpha_D": 0.103, "N_c": 6.4e13, "D_c": 1.8e13},
    "compute": {"E": 1.6, "A": 900.0, "a": 0.155},
    "repetition": {
        "E": 1.87, "A": 521.0, "B": 1488.0, "alpha": 0.3527, "R_D": 15.39, "R_N": 5.31
    },
    "students": STUDENT,
    "transfer": {"E": 1.7, "A": 406.0, "B": 411.0, "alpha": 0.34, "beta": 0.28} | TEXT,
    "over_training": {"E": 1.5, "a": 141.0, "b": 190.0, "eta": 0.121},
    "farseer": {
        "E": 2.0, "k3": 0.1, "gamma": 0.1, "B": 0.2, "k2": 60.0, "beta": 0.11,
        "d": 3.0, "k1": 0.5, "alpha": 0.075,
    },
    "sparsity": {
        "a_S": 16.8, "b_S": 0.722, "c_S": 45.0, "b_N": 0.245, "a_D": 6.9e8, "b_D": 0.203, "c": 0.651
    },
    "average_size": {"E": 1.6, "A": 300.0, "B": 500.0, "alpha": 0.32, "beta": 0.29},
    "routed": CLARK,
    "joint_experts": LUDZIEJEWSKI,
    # The paper's own limit, 5e16, is none, and no run determines it.
    "leverage": TIAN | {"Am": 4.0},
    "width_depth": {
        "E": 1.48, "A": 40.0, "B": 2.9, "G": 2893.0, "Z": 23375.0,
        "alpha": 0.55, "beta": 0.79, "gamma": 0.5, "zeta": 0.476,
    },
    "precision": {
        "E": 2.0, "A": 400.0, "B": 500.0, "alpha": 0.33, "beta": 0.3, "gamma": 2.6745, "n": 0.3037
    },
    "post_training": {"C_T": 0.0598, "gamma_D": 0.5068, "gamma_N": 0.3439, "gamma_post": 0.5907},
    "group_precision": {"k": 0.1582, "gamma_N": 0.2186, "gamma_D": 0.0745, "gamma_G": 0.7779},
}  # fmt: skip
