"""PPL-p% sparsity: neurons that p % of perplexity can do without (arXiv 2411.02335).

Of a feed-forward's activations a (T, F) and its last map W (F, D), neuron i contributes
|a_i| ||W_i|| to a token. D(t) are the neurons whose contribution is at or below a threshold
t, and CETT, the cumulative error of tail truncation, is the mean over the valid tokens of

  CETT(t) = ||sum over D(t) of a_i W_i|| / ||sum over all of a_i W_i||

One CETT gives each layer its threshold, by bisection over 65536 values from the least
contribution to their 0.99 quantile. That CETT is bisected in [0, 1], to within 1e-6, until

  exp(loss' - loss) = 1 + p / 100

with the loss' of a pass in which each layer leaves out what contributes no more than its
threshold. Values, of that pass:

  activation_ratio   share of neurons above the threshold, by layer
  threshold          by layer; -1 where nothing is left out
  cett               the common one
  loss_rise          loss' - loss: ln(1 + p / 100). With few activations it jumps over that,
                     and then it is the value beside the jump; where no CETT up to 1 raises
                     the loss that much, that of the largest

Checked against the authors' code, from which differ: its quantile is of a sample; here a
contribution of exactly the threshold is left out, so that zeros are never active; where the
least of them is too much nothing is left out; and a token whose sum is zero counts as one
without error. A bias of the last map is no neuron's. Of a 2:4 feed-forward a is before
pruning, and what is left of it is pruned. It takes 21 passes of the network, and 336
products by the last maps.
"""

import dataclasses
import functools
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from elas_jax.common.fields import above
from elas_jax.common.limits import quoted
from elas_jax.systems.kinds import kernels, name_of
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.seen import in_order

CANDIDATES = 65536  # thresholds of a layer
QUANTILE = 0.99  # of the contributions, the largest candidate
HALVINGS = 20  # of [0, 1]: to 2^-20 < 1e-6


@dataclasses.dataclass(frozen=True)
class PPLSparsity:
  p: float = 1.0  # per cent by which the perplexity rises

  sown: ClassVar[tuple[str, ...]] = ('activation', 'thresholds')
  title: ClassVar[str] = 'PPL-p% sparsity'
  shown: ClassVar[dict[str, str]] = {
    'activation_ratio': 'active {:.1%}',
    'cett': 'CETT {:.3f}',
    'loss_rise': 'loss rise {:.4f}',
  }

  def check(self, where: str, config: Any) -> None:
    above(0, where, self, 'p')

  def lacking(self, config: Any) -> str:
    stack = config.model.stack
    if config.task == 'regression':
      return 'squared errors have no perplexity'
    if config.traits.reference:
      return 'a loss of preferences has no perplexity'
    if not stack:
      return 'the model has no feed-forwards'
    if not all('down' in layer.feed_forward.maps(stack.parts) for layer in stack.cycle):
      return "not every feed-forward has a last map 'down'"
    if not _plain(stack.parts.linear):
      accepted = quoted([name for name, kind in LINEARS.items() if _plain(kind())])
      return (
        f'model.linear={name_of(LINEARS, stack.parts.linear)!r}: must be one of '
        f'{accepted}, so that a feed-forward is a sum over its neurons'
      )
    return ''

  def measure(self, seen: Any) -> dict[str, jax.Array]:
    wanted = math.log1p(self.p / 100)
    pass_at = functools.partial(_pass_at, seen, _layers(seen))

    def halve(_: Any, state: tuple) -> tuple:
      low, high, _ = state
      cett = (low + high) / 2
      found = pass_at(cett)
      below = found['loss_rise'] < wanted
      return jnp.where(below, cett, low), jnp.where(below, high, cett), found

    start = jnp.float32(0), jnp.float32(1)
    nothing = jax.eval_shape(pass_at, start[0])
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), nothing)
    # Once more than there are halvings: the last pass is at the middle that is left.
    return jax.lax.fori_loop(0, HALVINGS + 1, halve, (*start, nothing))[-1]


def _plain(linear: Any) -> bool:
  return kernels(linear) > 0 or hasattr(linear, 'merged')


class Layer(NamedTuple):
  """What the thresholds of a feed-forward, or of a stack of them, are found of."""

  a_TxF: jax.Array
  w_FxD: jax.Array
  contribution_TxF: jax.Array
  norm_F: jax.Array  # of the rows of w
  whole_T: jax.Array  # norm of the sum over all neurons
  weight_T: jax.Array  # of the tokens, 0 or 1


def _layers(seen: Any) -> dict[str, Layer]:
  """By the paths of the feed-forwards, stacked (N, ...)."""
  found, matrices = {}, seen.matrices()
  for path, a in seen.sown['activation'].items():
    factors = [w.astype(jnp.float32) for w in matrices[f'{path}/down']]
    w = functools.reduce(_product, factors)
    a, w = (x.astype(jnp.float32).reshape(-1, *x.shape[-2:]) for x in (a, w))
    norm_NxF = jnp.linalg.norm(w, axis=-1)
    weight_NxT = jnp.broadcast_to(seen.weights_of(a.shape[1]), a.shape[:2])
    whole_NxT = jnp.linalg.norm(_product(a, w), axis=-1)
    contribution = jnp.abs(a) * norm_NxF[:, None, :]
    found[path] = Layer(a, w, contribution, norm_NxF, whole_NxT, weight_NxT)
  return found


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.matmul(a, b, precision='highest')


def _mean(x_NxT: jax.Array, weight_NxT: jax.Array) -> jax.Array:
  """Over the valid tokens, the last axis."""
  return (x_NxT * weight_NxT).sum(-1) / jnp.maximum(weight_NxT.sum(-1), 1)


def _pass_at(seen: Any, layers: dict[str, Layer], cett: jax.Array) -> dict[str, jax.Array]:
  """The values of a pass at a common CETT."""
  threshold_N, of_neurons, active_N = {}, {}, {}
  for path, layer in layers.items():
    threshold_N[path] = jax.lax.map(functools.partial(_threshold, cett), layer)
    limits_NxF = _of_neurons(threshold_N[path], layer.norm_F)
    of_neurons[path] = limits_NxF.reshape(seen.sown['thresholds'][path].shape)
  now = seen.again(of_neurons)
  for path, layer in layers.items():
    active = jnp.abs(now.sown['activation'][path]) > of_neurons[path][..., None, :]
    share_NxT = active.mean(-1).reshape(layer.weight_T.shape)
    active_N[path] = _mean(share_NxT, layer.weight_T)
  return {
    'activation_ratio': in_order(list(active_N.values())),
    'threshold': in_order(list(threshold_N.values())),
    'cett': cett,
    'loss_rise': (now.sums['loss'] - seen.sums['loss']) / seen.count,
  }


def _threshold(cett: jax.Array, layer: Layer) -> jax.Array:
  """The largest candidate of a layer within the CETT, as bisection finds it, or -1."""
  valid_Tx1 = layer.weight_T[:, None] > 0
  counted_TxF = jnp.where(valid_Tx1, layer.contribution_TxF, jnp.nan)
  least, most = jnp.nanmin(counted_TxF), jnp.nanquantile(counted_TxF, QUANTILE)
  candidate = lambda index: least + (most - least) * index / (CANDIDATES - 1)

  def halve(_: Any, span: tuple) -> tuple:
    left, right = span
    middle = (left + right) // 2
    tail_TxF = jnp.where(layer.contribution_TxF <= candidate(middle), layer.a_TxF, 0)
    error_T = jnp.linalg.norm(_product(tail_TxF, layer.w_FxD), axis=-1)
    relative_T = jnp.where(layer.whole_T > 0, error_T / layer.whole_T, 0)
    too_much = _mean(relative_T, layer.weight_T) > cett
    on = left < right
    return (
      jnp.where(on & ~too_much, middle + 1, left),
      jnp.where(on & too_much, middle, right),
    )

  steps = CANDIDATES.bit_length() - 1
  left, _ = jax.lax.fori_loop(0, steps, halve, (0, CANDIDATES - 1))
  return jnp.where(left > 0, candidate(left - 1), -1.0)


def _of_neurons(threshold_N: jax.Array, norm_NxF: jax.Array) -> jax.Array:
  """(N, F): up to which |a| a neuron contributes no more than its layer's threshold."""
  some_Nx1 = threshold_N[:, None] >= 0
  limit_NxF = threshold_N[:, None] / jnp.where(norm_NxF > 0, norm_NxF, 1.0)
  limit_NxF = jnp.where(norm_NxF > 0, limit_NxF, jnp.inf)
  return jnp.where(some_Nx1, limit_NxF, -1.0)


CASES = (PPLSparsity(), PPLSparsity(p=10.0))
# No truth of one pass, since the network is run again: its test in tests/systems/measures
# has a whole network in NumPy float64.
