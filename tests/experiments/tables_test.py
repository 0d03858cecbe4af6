"""What the tables state beside their runs."""

import dataclasses
import math

from experiments import ablation_controls, published, table4_warmup
from experiments.runs import Setting


def test_equal_flops_rank_and_why_no_rank_has_equal_memory(tmp_path):
  batch, length = '--config.data.batch_size=2', '--config.data.sequence_length=512'
  setting = Setting('smoke', (batch,), tmp_path, tmp_path / 'smoke.json')
  model = setting.config('elas', 'smoke', {}).model
  model = dataclasses.replace(model, linear=dataclasses.replace(model.linear, rank=30))
  four = dataclasses.replace(model, feed_forward_width=4 * model.width)
  assert ablation_controls.equal_flops_rank(four) == 26
  assert ablation_controls.equal_flops_rank(model) == 27  # F = 2 D: 16 of 18 parts
  row = ablation_controls.equal_flops(setting, 'smoke')
  assert row.fields == {'model.linear.rank': 7, 'optimizer.lazy_scale': 7 / 32}
  assert setting.config(row.method, 'smoke', row.fields).model.linear.rank == 7
  # By hand: float32 h and y, against half of that for z and a bit for each entry.
  entries = 2 * 2 * 512 * 64
  long = dataclasses.replace(setting, overrides=(batch, length))
  (note,) = ablation_controls.memory_note(long, 'smoke')
  kept = f'{entries * 8 / 1e6:.1f} MB of h and y, against {entries * 17 / 8e6:.1f} MB of'
  assert kept in note
  assert not ablation_controls.memory_note(setting, 'smoke')  # 32 tokens: there is one


def test_published_numbers_are_well_formed():
  from configs.methods import METHODS
  from pallas_kernels.two_four import RULES

  assert set(published.PERPLEXITY) <= set(METHODS)
  assert set(published.RULES_OF_TABLE) <= set(RULES)
  for table in (published.PERPLEXITY, published.WARMUP, published.RULES_OF_TABLE):
    for sizes in table.values():
      assert set(sizes) <= set(published.SIZES)
      for cell in (cell for cells in sizes.values() for cell in cells):
        assert cell.mark in published.MARKS
        assert cell.source
        assert math.isnan(cell.value) or 10 < cell.value < 150
  # ELAS trained with 1000 dense steps and top2 is the same entry in its three tables.
  elas = published.PERPLEXITY['elas']
  assert published.RULES_OF_TABLE['top2'] == elas
  assert published.WARMUP[1000]['130m'] == elas['130m']
  assert 'sltrain' not in published.PERPLEXITY
  assert set(published.PERPLEXITY['cola']) == {'1b'}
  assert set(published.PERPLEXITY['loro']) == {'130m'}


def test_warmup_table_says_whether_a_loss_was_not_finite():
  run = lambda seed, status: {'seed': seed, 'status': status, 'step': 7}
  entry = {'label': 'dense_0', 'size': 'proxy'}
  say = lambda *runs: table4_warmup.conclude([entry | {'runs': runs}])[1][0]
  assert say(run(0, 'not run')).endswith('not known, no run is done yet.')
  assert say(run(0, 'finished')).endswith('no run had a non-finite loss, of 1 done.')
  both = say(run(0, 'finished'), run(1, 'diverged'))
  assert both.endswith('1 of 2 runs had a non-finite loss (seed 1 at step 7).')
