"""As many of the smallest weights to zero as cost no more than 1 % (arXiv 2306.03805).

The essential sparsity is the largest share of weights that one-shot pruning by global
magnitude can take while the pruned model is within `tolerance` of the dense one, and beyond
which it drops sharply. Here it is the perplexity that must not rise above (1 + tolerance)
times that of the dense model, or the loss itself where it is no -log of a probability, on
rows of the train split. The losses at `points` shares are said, the curve; where it first
leaves the tolerance the drop is found by bisection between two of them. The run is pruned
there, with masked maps as of the converter prune.

The paper compares scores of downstream tasks after fine-tuning the pruned model for each;
here nothing is trained before the comparison, so the share is smaller. What is pruned is
that of the authors' code for OPT (VITA-Group/essential_sparsity): the linear maps of the
layers, all sorted together.
"""

import dataclasses
import math
from typing import Any, ClassVar

from elas_jax.common.fields import above, at_least
from elas_jax.systems.converters.common import Given
from elas_jax.systems.converters.prune import by_magnitude
from elas_jax.systems.converters.pruning import (
  check_prunable,
  dense_or_masked,
  masked_run,
  tell,
  weights,
)

HALVINGS = 6  # of the last interval


@dataclasses.dataclass(frozen=True)
class Essential:
  tolerance: float = 0.01  # by which the perplexity may rise, as a share
  points: int = 9  # of the curve: 10 % to 90 % in equal steps; ours
  units: int = 16384  # tokens or examples of the train split, about; ours

  equal: ClassVar[bool] = False

  def check(self, where: str, config: Any) -> None:
    check_prunable(config)
    above(0, where, self, 'tolerance')
    at_least(1, where, self, 'points units')

  def convert(self, given: Given) -> tuple[Any, dict[str, Any]]:
    given, rows = dense_or_masked(given), given.rows(self.units)
    found, probability = weights(given), given.config.traits.normalised

    def pruned(share):
      return masked_run(given, by_magnitude(found, share))

    def cost(share):
      loss = given.loss(*pruned(share), rows)
      return math.exp(min(loss, 700.0)) if probability else loss

    dense = cost(0.0)
    fits = lambda cost: cost <= (1 + self.tolerance) * dense
    step = 1 / (self.points + 1)
    curve = {n * step: cost(n * step) for n in range(1, self.points + 1)}
    what = 'perplexity' if probability else 'loss'
    shown = ', '.join(f'{share:.0%} {value:.4g}' for share, value in curve.items())
    given.say(f'{what} {dense:.4g}; of the pruned model at a sparsity of {shown}')
    share = drop_point(curve, fits, lambda x: fits(cost(x)))
    given.say(f'essential sparsity {share:.2%}, at a tolerance of {self.tolerance:.2%}')
    config, variables = pruned(share)
    tell(given, variables)
    return config, variables


def drop_point(curve: dict[float, float], fits: Any, fits_at: Any) -> float:
  """The largest share before the first that does not fit, found by bisection there."""
  last = 0.0
  for share, value in curve.items():
    if not fits(value):
      break
    last = share
  else:
    share = 1.0
  for _ in range(HALVINGS):
    middle = (last + share) / 2
    last, share = (middle, share) if fits_at(middle) else (last, middle)
  return last


CASES = (Essential(points=2, units=64), Essential(0.2, 2, 64))
# No truth: the point is that of a search over all shares in tests/systems/converters.
