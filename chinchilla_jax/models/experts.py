"""Experts: feed-forward networks of which each token goes through a few, as a router picks them.

A token's gates are its probabilities of the experts that it picks, not rescaled (Fedus et al. 2022,
arXiv 2101.03961, section 2.1; Muennighoff et al. 2024, OLMoE, arXiv 2409.02060, section 4.1.1).
Router, probabilities and what is summed up are float32.

None is dropped unless `expert_capacity` says so. The tokens of an expert fill blocks of one size,
the last of them in part (Gale et al. 2022, MegaBlocks, arXiv 2211.15841, section 5), so that one
batched product over blocks is all there is: its size depends on no choice, and a token waits for
no other. Blocks hold a half to a quarter of an equal split; all of them together hold the tokens at
most 1.5 times, whatever the router does. Rows go to blocks and back by gathers in both passes.

Shapes: T tokens, P parts over devices of N tokens each, E experts, J picks of a token, C rows of
one of M blocks, D width, X size of an expert.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from chinchilla_jax.models.loss import Sums
from chinchilla_jax.models.module import ParameterModule

BIAS = "bias"  # of a router's choices, beside its parameters; who balances experts puts it there
_PADDING = 2  # an equal split is at least so many blocks


class Picks(NamedTuple):
    """What a router picks."""

    expert_TxJ: jax.Array
    gate_TxJ: jax.Array
    kept_TxJ: jax.Array  # false where the expert has no place left


class Blocks(NamedTuple):
    """Where the picks of each part go, and what comes from where; out of range is nowhere."""

    owner_PxM: jax.Array  # the expert of a block
    pick_PxR: jax.Array  # of a row of all blocks, R = M C
    row_PxI: jax.Array  # of a pick, I = N J


def block_rows(picks: int, experts: int) -> int:
    """C: rows of a block, for so many picks of a part."""
    if experts == 1:
        return picks
    return 1 << max(0, (picks // (experts * _PADDING)).bit_length() - 1)


def block_count(picks: int, experts: int, over: int = 1) -> int:
    """M: blocks that any split of the picks fits in, a multiple of `over` devices."""
    rows = block_rows(picks, experts)
    most = (picks + experts * (rows - 1)) // rows
    return -(-most // over) * over


def blocks(expert_PxI: jax.Array, kept_PxI: jax.Array, experts: int, over: int = 1) -> Blocks:
    """Picks of an expert, in their order, in rows of blocks of its own.

    Args:
      over: devices that the experts of a part are split over.
    """
    picks = expert_PxI.shape[1]
    rows, count = block_rows(picks, experts), block_count(picks, experts, over)
    return jax.vmap(functools.partial(_of_part, rows=rows, count=count, experts=experts))(
        expert_PxI, kept_PxI
    )


def _of_part(expert_I: jax.Array, kept_I: jax.Array, rows: int, count: int, experts: int) -> Blocks:
    picks = expert_I.shape[0]
    owned_IxE = kept_I[:, None] & (expert_I[:, None] == jnp.arange(experts)[None])
    so_far_IxE = jnp.cumsum(owned_IxE, axis=0, dtype=jnp.int32)
    blocks_E = -(-so_far_IxE[-1] // rows)
    end_E = jnp.cumsum(blocks_E)
    owner_M = jnp.sum(jnp.arange(count)[:, None] >= end_E[None], axis=1)
    row_IxE = (end_E - blocks_E)[None] * rows + so_far_IxE - 1
    row_I = jnp.where(kept_I, jnp.sum(jnp.where(owned_IxE, row_IxE, 0), axis=1), count * rows)
    # Cheaper than sorting picks by their experts, and a thirtieth of the layer's time.
    pick_R = jnp.full(count * rows, picks).at[row_I].set(jnp.arange(picks), mode="drop")
    return Blocks(jnp.minimum(owner_M, experts - 1), pick_R, row_I)


@jax.custom_vjp
def gathered(x_PxAxD: jax.Array, index_PxB: jax.Array, back_PxAxS: jax.Array) -> jax.Array:
    """x[index], [P, B, D], zeros where the index is out of range.

    Args:
      back_PxAxS: where each row of x went, out of range for nowhere: the gradient is gathered too,
        where that of a gather would scatter, one row after the other on a CPU.
    """
    return jnp.take_along_axis(x_PxAxD, index_PxB[..., None], axis=1, mode="fill", fill_value=0)


def _gathered_forward(
    x_PxAxD: jax.Array, index_PxB: jax.Array, back_PxAxS: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return gathered(x_PxAxD, index_PxB, back_PxAxS), back_PxAxS


def _gathered_backward(back_PxAxS: jax.Array, dy_PxBxD: jax.Array) -> tuple[jax.Array, None, None]:
    parts, rows, times = back_PxAxS.shape
    index = back_PxAxS.reshape(parts, -1, 1)
    dx = jnp.take_along_axis(dy_PxBxD, index, axis=1, mode="fill", fill_value=0)
    dx_PxAxD = jnp.sum(dx.reshape(parts, rows, times, -1), axis=2, dtype=jnp.float32)
    return dx_PxAxD.astype(dy_PxBxD.dtype), None, None


gathered.defvjp(_gathered_forward, _gathered_backward)


@jax.custom_vjp
def of_owners(w_ExIxO: jax.Array, owner_PxM: jax.Array) -> jax.Array:
    """Of each block its expert's matrix, [P M, I, O]; gradients add up by a product."""
    return w_ExIxO[owner_PxM.reshape(-1)]


def _owners_forward(
    w_ExIxO: jax.Array, owner_PxM: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return of_owners(w_ExIxO, owner_PxM), (owner_PxM, jnp.arange(w_ExIxO.shape[0]))


def _owners_backward(
    saved: tuple[jax.Array, jax.Array], dw_BxIxO: jax.Array
) -> tuple[jax.Array, None]:
    owner_PxM, expert_E = saved
    if expert_E.shape[0] == dw_BxIxO.shape[0] == 1:
        return dw_BxIxO, None
    owned_BxE = owner_PxM.reshape(-1)[:, None] == expert_E[None]
    dw = jnp.einsum("be,bio->eio", owned_BxE.astype(jnp.float32), dw_BxIxO.astype(jnp.float32))
    return dw.astype(dw_BxIxO.dtype), None


of_owners.defvjp(_owners_forward, _owners_backward)


class Experts(ParameterModule):
    """Those of one layer and their router."""

    @nn.compact
    def __call__(self, x_TxD: jax.Array, sequence: int) -> tuple[jax.Array, Sums]:
        """[T, D], and what is summed up over tokens, `picked`."""
        c, parts = self.config, self.layout.parts
        picks, sums = self.picked(x_TxD, sequence)
        expert_PxI, kept_PxI = (
            each.reshape(parts, -1) for each in (picks.expert_TxJ, picks.kept_TxJ)
        )
        to = blocks(expert_PxI, kept_PxI, c.experts, self.layout.experts_over)
        rows = block_rows(expert_PxI.shape[1], c.experts)
        owner_PxM = self.layout.place(to.owner_PxM, "PE")
        token_PxR = to.pick_PxR // c.expert_picks  # of the part; N where there is none
        rows_PxNxJ = to.row_PxI.reshape(parts, -1, c.expert_picks)
        x_PxRxD = gathered(x_TxD.reshape(parts, -1, c.width), token_PxR, rows_PxNxJ)
        x_PxMxCxD = self.layout.place(x_PxRxD.reshape(parts, -1, rows, c.width), "PECK")
        x_BxCxD = x_PxMxCxD.reshape(-1, rows, c.width)
        if c.definition == "modern":
            h = jax.nn.silu(self._through("expert_gate", x_BxCxD, owner_PxM))
            h *= self._through("expert_up", x_BxCxD, owner_PxM)
        else:
            h = jax.nn.gelu(self._through("expert_up", x_BxCxD, owner_PxM))
        y_BxCxD = self._through("expert_down", h, owner_PxM)
        y_PxRxD = y_BxCxD.reshape(parts, -1, c.width)
        y_PxIxD = gathered(y_PxRxD, to.row_PxI, to.pick_PxR[..., None])
        y_TxJxD = y_PxIxD.reshape(-1, c.expert_picks, c.width).astype(jnp.float32)
        y_TxD = jnp.sum(y_TxJxD * picks.gate_TxJ[..., None], axis=1)
        return y_TxD.astype(x_TxD.dtype), sums

    def _through(self, name: str, x_BxCxI: jax.Array, owner_PxM: jax.Array) -> jax.Array:
        """Each block times its expert's matrix."""
        product = functools.partial(self.products.linear, name)
        return jax.vmap(product)(x_BxCxI, of_owners(self.weight(name), owner_PxM))

    def picked(self, x_TxD: jax.Array, sequence: int) -> tuple[Picks, Sums]:
        """The picks of each token, and sums over tokens.

        `router_load` [E] counts picks of each expert; `router_dropped` those that it had no
        place for, of a sequence's tokens the last; `router_not_finite` tokens with a logit that
        is no number or infinite, which a choice would hide; `router_balance` is, over tokens of a
        sequence, E/J sum_e (its share of picks) (its mean probability), 1 where both are even
        (Fedus et al. 2022, equation 4, by sequence: DeepSeek-AI 2024, arXiv 2412.19437, equation
        17); `router_logits` is logsumexp^2 (Zoph et al. 2022, arXiv 2202.08906, equation 5).
        """
        c = self.config
        logits_TxE = jnp.dot(
            x_TxD.astype(jnp.float32), self.weight("router"), precision=jax.lax.Precision.HIGHEST
        )
        logits_TxE = self.layout.place(logits_TxE, "TK")
        share_TxE = jax.nn.softmax(logits_TxE, axis=-1)
        preferred = jax.lax.stop_gradient(share_TxE)
        if self.has_variable("params", BIAS):
            preferred += jax.lax.broadcast_to_rank(self.get_variable("params", BIAS), 2)
        _, expert_TxJ = jax.lax.top_k(preferred, c.expert_picks)
        picked_TxJxE = expert_TxJ[..., None] == jnp.arange(c.experts)[None, None]
        gate_TxJ = jnp.sum(jnp.where(picked_TxJxE, share_TxE[:, None], 0.0), axis=-1)
        picked_BxIxE = picked_TxJxE.reshape(-1, sequence * c.expert_picks, c.experts)
        load_BxE = jnp.sum(picked_BxIxE, axis=1, dtype=jnp.float32)
        kept_TxJ = jnp.ones(expert_TxJ.shape, bool)
        if c.expert_capacity:
            before_BxIxE = jnp.cumsum(picked_BxIxE, axis=1, dtype=jnp.int32) - 1
            place_BxI = jnp.sum(jnp.where(picked_BxIxE, before_BxIxE, 0), axis=-1)
            kept_TxJ = (place_BxI < c.expert_places(sequence)).reshape(expert_TxJ.shape)
        mean_BxE = jnp.mean(share_TxE.reshape(-1, sequence, c.experts), axis=1)
        finite_T = jnp.all(jnp.isfinite(logits_TxE), axis=-1)
        logits_T = jax.nn.logsumexp(logits_TxE, axis=-1)
        even = sequence * c.expert_picks / c.experts
        return Picks(expert_TxJ, gate_TxJ, kept_TxJ), {
            "router_load": jnp.sum(load_BxE, axis=0),
            "router_dropped": jnp.sum(~kept_TxJ, dtype=jnp.float32),
            "router_not_finite": jnp.sum(~finite_T, dtype=jnp.float32),
            "router_balance": sequence * jnp.sum(load_BxE / even * mean_BxE),
            "router_logits": jnp.sum(logits_T * logits_T),
        }
