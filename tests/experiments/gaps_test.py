"""What the tables of ELAS's gap to its controls conclude, by values that are made."""

import numpy as np
import pytest
from scipy import stats

from elas_jax.run.record import Record
from elas_jax.tables.render import Section
from experiments.papers import elas_gap, weak_point
from tests.tables.fakes import plan_of, record_all

GAPS = (0.02, -0.01, 0.03, 0.0, 0.01, 0.02, -0.02, 0.015)  # by seed


def concluded(table, bits_of):
  """By values of (label, seed, learning rate), those of searches without a gap."""
  of = lambda run: bits_of(run.label, run.seed, run.config.optimizer.learning_rate)
  plan = plan_of(table).by(Record(record_all(table, of)))
  return table.conclude(Section(plan, 'a').entries)


def test_a_pair_stands_at_the_rates_of_both_searches():
  best = {'elas': 0.032, 'loro_relu2': 0.016, 'elas_adamw': 4e-3, 'low_rank_relu2': 4e-3}

  def bits(label, seed, rate):
    name = label.partition(' ')[0].partition('_at_')[0]
    gap = GAPS[seed] if seed < 8 and name == 'elas' else 0.0
    far = abs(np.log2(rate / best[name])) if seed >= 1000 else 0.0
    return 2 + 0.1 * far + gap

  said = concluded(elas_gap.TABLE, bits)
  (one,) = [x for x in said if x.startswith('elas - loro_relu2, bits per byte:')]
  low, high = stats.ttest_1samp(GAPS, 0).confidence_interval()
  spread = f'{np.mean(GAPS):+.4f} ± {np.std(GAPS, ddof=1):.4f} over 8 seeds'
  assert f'{spread}, 95 % interval {low:+.4f} to {high:+.4f}.' in one
  assert any(x.startswith('elas_at_rate_of_elas - loro_relu2_at_') for x in said)
  same = 'elas_adamw_at_rate_of_elas_adamw, low_rank_relu2_at_rate_of_elas_adamw: the runs'
  assert len([x for x in said if 'low_rank_relu2_at' in x]) == 1
  assert any(x.startswith(same) for x in said)


@pytest.mark.parametrize('shown', [True, False])
def test_what_closes_a_gap_that_is_shown(shown):
  more = {'elas_depth_8': 0.2, 'elas_depth_8_dense_end': 0.1, 'elas_ratio_1/8': 0.3}
  more['elas_depth_8_dense_start'] = 0.3
  more['elas_depth_8_straight_through'] = 0.2

  def bits(label, seed, rate):
    noise = 0.001 * seed if shown else (-1) ** seed
    return (
      2 + more.get(label, 0) * (1 if seed < 8 else 0) + noise * label.startswith('elas')
    )

  said = concluded(weak_point.TABLE, bits)
  find = lambda start: next(x for x in said if x.startswith(start))
  closes, grows = (
    find('elas_depth_8_dense_end:'),
    find('gap of ratio_1/8 - gap of ratio_1/4'),
  )
  if shown:
    assert closes.endswith('closes 50 % of the gap of elas_depth_8.')
    assert '+0.3000 ± 0.0000' in grows and 'higher by 0.3' in grows
    assert find('elas_depth_8_dense_start:').endswith('gap of elas_depth_8 by 50 %.')
    (not_shown,) = [x for x in said if 'not shown to close any' in x]
    assert not_shown.startswith('elas_depth_8_straight_through: ')
  else:
    assert closes.endswith('elas_depth_8 has no gap to close that is shown.')
