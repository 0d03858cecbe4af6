"""Weights of smallest magnitude to zero, in one shot: a share, or N of M (1506.02626).

The maps become masked, dense ones whose zeros stay when training goes on. `sparsity` is a
share of all weights of the linear maps, of which the smallest |w| go, wherever they are
(scope 'global', as arXiv 2306.03805 prunes language models) or the same share of every map
(scope 'map'). With a `pattern` N:M it is N of every M consecutive inputs of an output that
stay, the largest, and of equal ones the first (arXiv 2104.08378): 2:4 is 50 %. In a
convolution these are channels of one pixel. Maps whose inputs M does not divide stay whole.

Factors are multiplied into dense maps first, as the converter merge does. A run that is
masked already keeps its zeros, which count as weights of magnitude 0.
"""

import dataclasses
import re
from typing import Any, ClassVar, Literal

import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.limits import shown
from elas_jax.systems.converters.common import Given
from elas_jax.systems.converters.pruning import (
  Arrays,
  check_prunable,
  dense_or_masked,
  layers,
  masked_run,
  smallest,
  smallest_of_all,
  tell,
  weights,
)


@dataclasses.dataclass(frozen=True)
class Prune:
  sparsity: float = 0.5  # share of the weights that go; ours, published are 0.1 to 0.9
  scope: Literal['global', 'map'] = 'global'  # of all maps together, or of each
  pattern: str = ''  # 'N:M' such as '2:4', in place of a share and a scope

  equal: ClassVar[bool] = False

  def check(self, where: str, config: Any) -> None:
    check_prunable(config)
    if not 0 <= self.sparsity < 1:
      raise UserError(f'{where}.sparsity={self.sparsity!r}: must be at least 0 and below 1')
    if self.pattern:
      parts = re.fullmatch('([0-9]{1,4}):([0-9]{1,4})', self.pattern)
      if not parts or not 0 < int(parts[1]) < int(parts[2]):
        raise UserError(
          f"{where}.pattern={shown(self.pattern)}: must be '' or 'N:M' with 0 < N < M, "
          "such as '2:4'"
        )

  def convert(self, given: Given) -> tuple[Any, dict[str, Any]]:
    given = dense_or_masked(given)
    found = weights(given)
    if self.pattern:
      kept = self._by_pattern(given, found)
    else:
      kept = by_magnitude(found, self.sparsity, self.scope)
    config, variables = masked_run(given, kept)
    tell(given, variables)
    return config, variables

  def _by_pattern(self, given: Given, found: Arrays) -> Arrays:
    n, m = map(int, self.pattern.split(':'))
    whole = [path for path, w in found.items() if w.shape[-2] % m]
    if len(whole) == len(found):
      raise UserError(
        f'converter.pattern={self.pattern!r}: {whole[0]} has {found[whole[0]].shape[-2]} '
        f'inputs; those of some map must be a multiple of {m}'
      )
    if whole:
      given.say(f'left whole, as their inputs are no multiple of {m}: {", ".join(whole)}')
    return {
      path: np.ones(w.shape, bool) if path in whole else of_groups(w, n, m)
      for path, w in found.items()
    }


def by_magnitude(found: Arrays, sparsity: float, scope: str = 'global') -> Arrays:
  """What is kept where round(sparsity * size) of the smallest |w| go."""
  sizes = {path: np.abs(w) for path, w in found.items()}
  if scope == 'global':
    count = sum(w.size for w in found.values())
    gone = smallest_of_all(sizes, round(sparsity * count))
    return {path: ~x for path, x in gone.items()}
  kept = {}
  for path, x in sizes.items():
    of_map = [
      ~smallest(one, round(sparsity * one.size)) for one in layers(path, x).values()
    ]
    kept[path] = np.stack(of_map).reshape(x.shape)
  return kept


def of_groups(w: np.ndarray, n: int, m: int) -> np.ndarray:
  """What is kept of (..., I, O): n of m consecutive inputs, the first of equal ones."""
  groups = np.abs(w).reshape(*w.shape[:-2], w.shape[-2] // m, m, w.shape[-1])
  rank = np.argsort(np.argsort(-groups, axis=-2, kind='stable'), axis=-2, kind='stable')
  return (rank < n).reshape(w.shape)


CASES = (Prune(), Prune(0.75, 'map'), Prune(pattern='2:4'))
# No truth: masks are compared with NumPy's in tests/systems/converters.
