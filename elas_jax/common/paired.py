"""Two sides compared seed by seed: differences, their spread, and what they show.

Of the n seeds s that both sides have, d_s = a_s - b_s, with mean m and sample standard
deviation v. Taken as draws of one normal distribution, their mean lies with probability
`confidence` within m ± t v / sqrt(n), where t is the (1 + confidence) / 2 quantile of
Student's t with n - 1 degrees of freedom.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping

from elas_jax.common.errors import UserError

NOT_KNOWN = 'not known, no seed has finished both'
ONE_SEED = 'one seed: nothing can be said of the spread'
NOT_SHOWN = 'no difference shown'


@dataclasses.dataclass(frozen=True)
class Paired:
  """What is known of a_s - b_s.

  Attributes:
    seeds: that both sides have a finite value of, in order.
    differences: of these seeds.
    mean: of the differences; None without any.
    deviation: their sample standard deviation; None of fewer than two.
    low: end of the interval; None of fewer than two.
    high: the other end.
    confidence: with which the interval has the mean in it.
    only_first: seeds that the second side has no finite value of, not used.
    only_second: seeds that the first side has no finite value of, not used.
  """

  seeds: tuple[int, ...]
  differences: tuple[float, ...]
  mean: float | None
  deviation: float | None
  low: float | None
  high: float | None
  confidence: float
  only_first: tuple[int, ...]
  only_second: tuple[int, ...]

  @property
  def shown(self) -> bool | None:
    """Whether zero lies outside the interval; None where there is no interval."""
    return None if self.low is None else not self.low <= 0 <= self.high

  def visible(self, power: float = 0.8) -> float | None:
    """The smallest mean that so many seeds, spread like these, show with this probability.

    (t_c + t_p) v / sqrt(n), the usual approximation: t_c as above and t_p the `power`
    quantile. With two or three seeds it is shown a little less often than that (0.73 and
    0.77 for 0.8). None where there is no interval.
    """
    if self.deviation is None:
      return None
    n = len(self.seeds)
    both = quantile(self.confidence, n) + quantile(2 * power - 1, n)
    return both * self.deviation / math.sqrt(n)

  def verdict(self, first: str, digits: int = 4) -> str:
    """In words; `first` names the side that the other is taken from."""
    if self.shown is None:
      return ONE_SEED if self.seeds else NOT_KNOWN
    if not self.shown:
      return NOT_SHOWN
    low, high = sorted((abs(self.low), abs(self.high)))
    return (
      f'{first} is {"lower" if self.mean < 0 else "higher"} by {abs(self.mean):.{digits}f} '
      f'({100 * self.confidence:g} % interval {low:.{digits}f} to {high:.{digits}f})'
    )


def paired(
  first: Mapping[int, float | None],
  second: Mapping[int, float | None],
  confidence: float = 0.95,
) -> Paired:
  """The first side less the second one, by seed; a value that is not finite is none.

  Raises:
    UserError: the confidence is not between 0 and 1.
  """
  if not 0 < confidence < 1:
    raise UserError(f'confidence={confidence:g}: must lie between 0 and 1')
  a, b = _finite(first), _finite(second)
  seeds = tuple(sorted(a.keys() & b.keys()))
  differences = tuple(a[seed] - b[seed] for seed in seeds)
  mean = statistics.mean(differences) if differences else None
  deviation = low = high = None
  if len(differences) > 1:
    deviation = statistics.stdev(differences)
    half = quantile(confidence, len(seeds)) * deviation / math.sqrt(len(seeds))
    low, high = mean - half, mean + half
  return Paired(
    seeds=seeds,
    differences=differences,
    mean=mean,
    deviation=deviation,
    low=low,
    high=high,
    confidence=confidence,
    only_first=tuple(sorted(a.keys() - b.keys())),
    only_second=tuple(sorted(b.keys() - a.keys())),
  )


def with_spread(
  mean: float | None, deviation: float | None, digits: int, sign: str = ''
) -> str:
  """'2.0800 ± 0.1236'; '-' for no mean, and nothing behind it for no deviation."""
  text = '-' if mean is None else f'{mean:{sign}.{digits}f}'
  return text if deviation is None else f'{text} ± {deviation:.{digits}f}'


def quantile(confidence: float, count: int) -> float:
  """Of Student's t with count - 1 degrees of freedom, of both sides."""
  from scipy import special  # scipy.stats, which has it too, takes a second to import

  return float(special.stdtrit(count - 1, (1 + confidence) / 2))


def _finite(values: Mapping[int, float | None]) -> dict[int, float]:
  return {s: x for s, x in values.items() if x is not None and math.isfinite(x)}
