"""What tables of gaps conclude, by values that are made."""

import numpy as np
import pytest
from scipy import stats

from elas_jax.run.record import Record
from elas_jax.tables.render import Section
from experiments.papers import decoder_networks, elas_gap, order_trials, weak_point
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


def test_each_trial_of_the_order_has_its_gate_and_gaps():
  rest = ['sltrain', 'cola', 'lost', 'relora', 'low_rank']
  order = {
    'usual': ['full', 'lora', 'galore', 'loro', *rest],
    'wider': ['full', 'galore', 'lora', 'loro'],
    'longer': ['full', 'loro', 'galore', 'lora'],
    'more_text': ['full', 'galore', 'loro', 'lora', *rest[::-1]],
  }

  def bits(run):
    if run.seed >= 1000:  # of a search
      return 2.0
    trial = next(x for x in order if run.label.endswith(f'_{x}'))
    method = run.label.removesuffix(f'_{trial}')
    return 1 + 0.25 * order[trial].index(method)

  table = order_trials.TABLE
  entries = Section(plan_of(table).by(Record(record_all(table, bits))), 'a').entries
  usual, wider, longer, more_text = table.first(entries)
  assert usual.startswith('usual: ') and longer.startswith('longer: ')
  assert 'bits per byte: full, lora, galore, loro, sltrain, cola,' in usual
  assert 'bits per byte: full, galore, lora, loro.' in wider
  assert 'bits per byte: full, loro, galore, lora.' in longer
  assert 'bits per byte: full, galore, loro, lora, low_rank,' in more_text
  said = {x.partition(' ')[0]: x for x in table.conclude(entries)}
  assert said['cola'] == 'cola - full, bits per byte: usual +1.2500, more_text +1.7500.'
  assert [said[x] for x in ('galore', 'loro', 'lora')] == [
    'galore - full, bits per byte: usual +0.5000, wider +0.2500, longer +0.5000, '
    'more_text +0.2500.',
    'loro - full, bits per byte: usual +0.7500, wider +0.7500, longer +0.2500, '
    'more_text +0.5000.',
    'lora - full, bits per byte: usual +0.2500, wider +0.5000, longer +0.7500, '
    'more_text +0.7500.',
  ]


def test_trials_of_the_order_change_nothing_else():
  plan = plan_of(order_trials.TABLE)
  config = {line.row.label: plan.config(line.row, 'proxy') for line in plan.lines}
  shapes = lambda x: (
    x.model.width,
    x.model.feed_forward_width,
    x.train.steps,
    x.eval.units,
  )
  for method in order_trials.FOUR:
    found = [shapes(config[f'{method}_{trial}']) for trial in order_trials.TRIALS]
    assert found == [
      (64, 176, 2500, 131_072),
      (96, 264, 2500, 131_072),
      (64, 176, 5000, 131_072),
      (64, 176, 2500, 1_048_576),
    ]
  for trial, rank in (('usual', 16), ('wider', 24)):
    assert config[f'loro_{trial}'].model.linear.rank == rank
    assert config[f'lora_{trial}'].model.linear.rank == rank
    assert config[f'galore_{trial}'].optimizer.rank == rank
  # LORO's lazy steps go by rank and width, whose ratio is the same.
  lazy = [config[f'loro_{trial}'].optimizer.lazy_scale for trial in ('usual', 'wider')]
  assert lazy[0] == lazy[1]


def test_the_usual_decoders_are_compared_too():
  bits = lambda label, seed, rate: 2 + 0.1 * label.startswith('relu2') + 0.001 * seed
  said = concluded(decoder_networks.TABLE, bits)
  pairs = [x.partition(' (')[0] for x in said]
  assert pairs == [
    'relu2 - swiglu',
    'kat - swiglu',
    'kat - relu2',
    'quadratic - swiglu',
    'quadratic - relu2',
  ]
  assert said[0].endswith(
    'By bits per byte: relu2 is higher by 0.1000 (95 % interval 0.1000 to 0.1000)'
  )
