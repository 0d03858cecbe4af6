"""sum_i A_i(x) down_i(act(up_i(x))): experts by a ReLU router (BlockFFN, arXiv 2507.08771).

  A0 = W_r x (B, L, E),  A1 = relu(A0),  A = A1 / sqrt(mean_E(A1^2) + epsilon) * scale

x (B, L, D). The E experts are not gated and have F / E features each, so that they are the
blocks of one up and one down map, of the model's linear kind: with a low-rank one the
experts share their factors. The router is plain and has no bias. How many experts are on
is nobody's choice but the router's: there is no top-k and no balancing, and the objectives
activation_locality and chunk_sparsity turn them off. Checked against the authors' code, of
which this is the feed-forward `block_linear` with `norm_after_router` rms.

Sown are y = A act(up(x)) (T, F), which enters the last map, as `activation`, A0 (T, E) as
`router` and A1 (T, E) as `experts`.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.fields import above, at_least, divides
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.feed_forwards.common import last_map
from elas_jax.systems.feed_forwards.mlp import MLP
from elas_jax.systems.kinds import Map, Parts, about, name_of, room, section
from elas_jax.systems.linears.dense import Dense
from elas_jax.systems.norms.rms import RMS
from elas_jax.systems.sown import sow


@dataclasses.dataclass(frozen=True)
class Block:
  experts: int = 48  # E, a divisor of F; of 0.1B and 0.8B models; 40 of 0.5B, 56 of 1.2B
  activation: Any = section(ACTIVATIONS, 'silu')  # between an expert's maps
  epsilon: float = 1e-5  # added to the mean square of A1

  def check(self, where: str, config: Any) -> None:
    at_least(1, where, self, 'experts')
    above(0, where, self, 'epsilon')
    divides(f'{where}.experts', self.experts, *config.model.hidden)
    if about(self.activation, 'mixes_features', default=False):
      name = name_of(ACTIVATIONS, self.activation)
      raise UserError(
        f'{where}.activation={name!r}: must be another, since it would mix the experts'
      )

  def make(self, parts: Parts, name: str) -> nn.Module:
    return Module(self, parts, name=name)

  def maps(self, parts: Parts) -> dict[str, Map]:
    return MLP().maps(parts)

  def inner(self, parts: Parts) -> dict[str, Any]:
    return {'activation': self.activation, 'router': Dense(), 'router_norm': self.norm}

  def zeros(self) -> bool:
    return True

  @property
  def norm(self) -> RMS:
    """Of the router's scores."""
    return RMS(self.epsilon)


class Module(nn.Module):
  kind: Block
  parts: Parts

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
    kind, parts, linear = self.kind, self.parts, self.parts.linear
    E, first = kind.experts, dataclasses.replace(parts, opening=True)
    plain = dataclasses.replace(parts, use_bias=False)
    a0_BxLxE = Dense().make(E, plain, name='router')(x_BxLxD)
    a1_BxLxE = jax.nn.relu(a0_BxLxE)
    a_BxLxE = kind.norm.make(parts, name='router_norm')(a1_BxLxE)
    sow(self, 'router', lambda: a0_BxLxE.reshape(-1, E))
    sow(self, 'experts', lambda: a1_BxLxE.reshape(-1, E))
    h_BxLxF = linear.make(parts.hidden, first, name='up')(x_BxLxD)
    y_BxLxF = kind.activation.make(parts, name='activation')(h_BxLxF)
    y_BxLxF = y_BxLxF * jnp.repeat(a_BxLxE, parts.hidden // E, axis=-1)
    return last_map(self, parts, y_BxLxF)


CASES = (Block(experts=4), Block(experts=2, activation=ACTIVATIONS['relu'](), epsilon=0.1))


def truth(kind: Block, x: np.ndarray, p: dict, linear: Any) -> np.ndarray:
  """One expert after the other."""
  scores = np.maximum(x @ p['router']['kernel'], 0)
  scores = room(kind.norm).truth(kind.norm, scores, p['router_norm'])
  activation, own = kind.activation, p.get('activation', {})
  y = room(activation).truth(activation, linear(x, p['up']), own)
  total, width = 0, y.shape[-1] // kind.experts
  for i in range(kind.experts):
    block = np.zeros_like(y)
    block[..., i * width : (i + 1) * width] = y[..., i * width : (i + 1) * width]
    total = total + scores[..., i : i + 1] * linear(block, p['down'])
  return total
