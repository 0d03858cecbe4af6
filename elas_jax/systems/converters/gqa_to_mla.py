"""Attention with J key-value heads made into mla (TransMLA, arXiv 2502.07864).

By default outputs stay. The J keys stand side by side and stay rotated; a query stands in
the place of the key of its group, with zeros in those of the others, times a factor for the
other scale of the scores; the J values are the latent, which `value` copies to the heads of
each group. The state is as large as it was, and queries J times as wide.

rope_heads = m keeps m of the keys rotated (RoRoPE). For each frequency f the pairs of the J
keys are first turned among the heads,

  k'_c = sum_j U_f[j, c] k_j,  q'_c = U_f[g, c] q of a query of group g,

the same for both entries of a pair, which changes no score. U_f (J, J) has the eigenvectors
of the second moments of the keys, summed over rows and both entries, the largest first. The
keys c >= m then are not rotated any more and go into the latent, where each head finds what
they gave it: sum over c >= m of U_f[g, c] k'_c, beside its query as it was.

kv_rank keeps so many entries of the latent: the principal components, not centred, of
[k' / ratio, v], ratio the mean norm of an entry of k' over that of v, times 1 / balance.

Checked against the authors' code (MuLabPKU/TransMLA). There the moments are damped by a
multiple of the identity, which changes no eigenvector; those of the latent are of the model
whose keys have lost their rotation, here all are of the run; and the first entries of v do
not count for the ratio. Their FreqFold, by which neighbouring frequencies share one, and
latents of queries are not here.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from elas_jax.common.errors import UserError
from elas_jax.common.fields import above, at_least
from elas_jax.common.limits import quoted
from elas_jax.systems.converters.common import Given, with_model
from elas_jax.systems.kinds import name_of
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.mixers import MIXERS
from elas_jax.systems.mixers.common import SharedHeads, turns_pairs
from elas_jax.systems.mixers.mla import MLA

SAMPLES = 128 * 256  # tokens whose keys and values are looked at, as published
PASS = 8  # rows of one pass, as published
OLD = ('query', 'key', 'value')


@dataclasses.dataclass(frozen=True)
class GQAToMLA:
  rope_heads: int = 0  # keys that stay rotated, 0: all as they are. Published: 64 / K
  kv_rank: int = 0  # entries of the latent, 0: all. Published: 512
  balance: float = 1.0  # of keys to values in the latent

  @property
  def equal(self) -> bool:
    return not (self.rope_heads or self.kv_rank)

  def check(self, where: str, config: Any) -> None:
    at_least(0, where, self, 'rope_heads kv_rank')
    above(0, where, self, 'balance')
    if not config.traits.text:
      raise UserError(f"task={config.task!r}: must be 'language' to be given latents")
    linear, attention = config.model.linear, config.model.attention
    if not isinstance(attention, SharedHeads):
      kinds = [name for name, kind in MIXERS.items() if issubclass(kind, SharedHeads)]
      name = name_of(MIXERS, attention)
      raise UserError(f'model.attention={name!r}: must be one of {quoted(kinds)}')
    if attention.qk_norm:
      raise UserError('model.attention.qk_norm=True: must be False, since mla has none')
    if not isinstance(linear, LINEARS['dense']):
      raise UserError(
        f"model.linear={name_of(LINEARS, linear)!r}: must be 'dense'; "
        '--converter=merge makes it so where it can be'
      )
    self._check_sizes(where, config)

  def _check_sizes(self, where: str, config: Any) -> None:
    J = config.model.attention.groups
    if self.rope_heads > J:
      raise UserError(
        f'{where}.rope_heads={self.rope_heads}: must be at most {J}, the key-value heads '
        'of model.attention'
      )
    if self.rope_heads and not turns_pairs(config):
      raise UserError(
        f'{where}.rope_heads={self.rope_heads}: must be 0 with a model.position that turns '
        'no keys'
      )
    sizes = self.sizes(config)
    if self.kv_rank > sizes.latent:
      raise UserError(
        f'{where}.kv_rank={self.kv_rank}: must be at most {sizes.latent}, the entries of '
        'values and of keys that are not rotated'
      )

  def sizes(self, config: Any) -> 'Sizes':
    attention = config.model.attention
    K = attention.head_size(config.model.stack.attention_parts)
    J = attention.groups
    return Sizes(attention.queries, J, K, self.rope_heads or J)

  def kind(self, sizes: 'Sizes') -> MLA:
    return MLA(
      heads=sizes.queries,
      kv_rank=self.kv_rank or sizes.latent,
      nope_size=sizes.nope,
      rope_size=sizes.head,
      value_size=sizes.head,
      rope_heads=sizes.rope_heads,
      latent_norm=False,
    )

  def convert(self, given: Given) -> tuple[Any, dict[str, Any]]:
    model, sizes = given.config.model, self.sizes(given.config)
    config = with_model(given.config, attention=self.kind(sizes))
    given.check(config)
    params = flatten_dict(given.variables['params'], sep='/')
    # The mixers of the pattern beside `attention` stay.
    layers = [path for path, x in model.stack.paths() if x.attention is model.attention]
    seen = {} if self.equal else moments(given)
    for path in (f'layers/{path}attention' for path in layers):
      old = [params.pop(f'{path}/{name}/kernel') for name in OLD]
      looked = seen.get(path, [None] * len(old[0]))
      made = [self.kernels(sizes, *layer) for layer in zip(*old, looked)]
      for name in made[0]:
        stacked = np.stack([layer[name] for layer in made])
        params[f'{path}/{name}/kernel'] = jnp.asarray(stacked, old[0].dtype)
    given.say(
      f'numbers of a token in the state of a layer: {2 * sizes.keys} -> '
      f'{config.model.attention.kv_rank + sizes.rope}'
    )
    return config, given.variables | {'params': unflatten_dict(params, sep='/')}

  def kernels(self, sizes: 'Sizes', query: Any, key: Any, value: Any, moment: Any):
    """Those of one layer, by name.

    Args:
      query, key, value: (D, H_q K), (D, J K), (D, J K).
      moment: sum over rows of [k, v]^T [k, v], (2 J K, 2 J K); None where outputs stay.
    """
    q_DxHxK, key_DxM, value_DxM = (np.asarray(x, np.float64) for x in (query, key, value))
    q_DxHxK = q_DxHxK.reshape(len(q_DxHxK), sizes.queries, sizes.head)
    turn_KxJxC = turns(sizes, moment if self.rope_heads else None)
    m = sizes.rope_heads
    own_KxHxC = turn_KxJxC[:, sizes.group_of]  # of a query's group
    rope_DxHxCxK = np.einsum('dhk,khc->dhck', q_DxHxK, own_KxHxC[..., :m])
    parts = [q_DxHxK] * bool(sizes.nope) + [rope_DxHxCxK.reshape(*q_DxHxK.shape[:2], -1)]
    scale = ((sizes.nope + sizes.rope) / sizes.head) ** 0.5
    query = scale * np.concatenate(parts, -1)
    turned = np.einsum('kjc,kl->jlck', turn_KxJxC, np.eye(sizes.head))
    turned = turned.reshape(sizes.keys, sizes.keys)
    rope, rest = np.split(turned, [sizes.rope], axis=1)
    into, key_up, value_up = self.latent(sizes, rest, own_KxHxC[..., m:], moment)
    found = {
      'query': query.reshape(len(query), -1),
      'rope_key': key_DxM @ rope,
      'latent': np.concatenate([key_DxM, value_DxM], 1) @ into,
      'value': value_up,
    }
    return found | ({'key': key_up} if sizes.nope else {})

  def latent(self, sizes: 'Sizes', rest: np.ndarray, own_KxHxC: np.ndarray, moment: Any):
    """([k, v] -> latent, latent -> the heads' keys, latent -> their values).

    Args:
      rest: k -> the entries of k' that are not rotated.
      own_KxHxC: how each head's key is made of them.
    """
    M, K, unit = sizes.keys, sizes.head, np.eye(sizes.head)
    N = rest.shape[1]
    heads = sizes.queries * K
    key_up = np.einsum('khc,kl->clhk', own_KxHxC, unit).reshape(N, heads)
    group_JxH = np.arange(sizes.groups)[:, None] == sizes.group_of[None]
    value_up = np.einsum('jh,kl->jlhk', group_JxH, unit).reshape(M, heads)
    into = np.block([[rest, np.zeros((M, M))], [np.zeros((M, N)), np.eye(M)]])
    key_up = np.concatenate([key_up, np.zeros((M, heads))])
    value_up = np.concatenate([np.zeros((N, heads)), value_up])
    if not self.kv_rank:
      return into, key_up, value_up
    if N:
      norms = np.diag(into.T @ moment @ into) ** 0.5
      ratio = norms[:N].mean() / (norms[N:].mean() * self.balance)
      into[:, :N] /= ratio
      key_up *= ratio
    basis = eigenvectors(into.T @ moment @ into)[:, : self.kv_rank]
    return into @ basis, basis.T @ key_up, basis.T @ value_up


@dataclasses.dataclass(frozen=True)
class Sizes:
  """H_q, J and K of the old attention, and m, the keys that stay rotated."""

  queries: int
  groups: int
  head: int
  rope_heads: int

  @property
  def keys(self) -> int:
    """Entries of all keys, and of all values."""
    return self.groups * self.head

  @property
  def rope(self) -> int:
    return self.rope_heads * self.head

  @property
  def nope(self) -> int:
    """Entries of a query and key that are not rotated: a whole head's, or none."""
    return self.head if self.rope_heads < self.groups else 0

  @property
  def latent(self) -> int:
    """Entries of the whole latent."""
    return 2 * self.keys - self.rope

  @property
  def group_of(self) -> np.ndarray:
    """The key-value head of each query head."""
    return np.arange(self.queries) // (self.queries // self.groups)


def turns(sizes: Sizes, moment: np.ndarray | None) -> np.ndarray:
  """U (K, J, J) of each entry of a head; the identity where no rows are looked at."""
  J, K = sizes.groups, sizes.head
  if moment is None:
    return np.broadcast_to(np.eye(J), (K, J, J))
  keys = moment[: J * K, : J * K].reshape(J, 2, K // 2, J, 2, K // 2)
  of_pairs = np.einsum('ipfjpf->fij', keys)
  return np.tile(np.stack([eigenvectors(x) for x in of_pairs]), (2, 1, 1))


def eigenvectors(symmetric: np.ndarray) -> np.ndarray:
  """As columns, those of the largest eigenvalues first."""
  return np.linalg.eigh(symmetric)[1][:, ::-1]


def _real(rows: dict[str, np.ndarray]) -> np.ndarray:
  """(B, L): whether there is text at a position, not what fills up a row."""
  B, L = rows['tokens'].shape[0], rows['tokens'].shape[1] - 1
  if 'answers' in rows:  # up to the last of them
    return np.cumsum(rows['answers'][:, ::-1], 1)[:, ::-1] > 0
  return np.broadcast_to(np.arange(L)[None], (B, L)) < rows['valid'][:, None]


def moments(given: Given) -> dict[str, np.ndarray]:
  """By the path of each attention sum over rows of [k, v]^T [k, v], (N, 2 J K, 2 J K)."""
  rows, found = given.rows(SAMPLES), {}
  for start in range(0, len(next(iter(rows.values()))), PASS):
    part = {name: x[start : start + PASS] for name, x in rows.items()}
    real_T = _real(part).reshape(-1)
    _, sown = given.outputs(given.config, given.variables, part, ('keys_values',))
    for path, x in sown['keys_values'].items():
      x_NxTxM = np.asarray(x, np.float64) * real_T[None, :, None]
      found[path] = found.get(path, 0) + x_NxTxM.swapaxes(-1, -2) @ x_NxTxM
  return found


CASES = (GQAToMLA(), GQAToMLA(rope_heads=1), GQAToMLA(rope_heads=1, kv_rank=8))
# No truth: what it gives is compared with what it was given, in tests/systems/converters.
