"""Which points of metrics.jsonl a curve is fitted to, and when there are too few."""

import json

import numpy as np
import pytest

from elas_jax.run.fits import fits
from elas_jax.systems.measures import MEASURES

MASSIVE = MEASURES['massive']()


def written(folder, *lines):
  text = [{'run': {}}, *lines]
  (folder / 'metrics.jsonl').write_text(''.join(json.dumps(x) + '\n' for x in text))
  return folder


def line(step, *layers, **others):
  return {'step': step} | {f'massive/ratio/{i}': x for i, x in enumerate(layers)} | others


@pytest.mark.parametrize('count', [0, 1, 5])
def test_too_few_points_are_said_in_a_line(count, tmp_path):
  lines = [line(step, 2.0) for step in range(count)]
  curves, notes = fits(written(tmp_path, *lines, {'step': 9, 'eval/loss': 1.0}), (MASSIVE,))
  assert curves == []
  assert notes == [
    f'massive/ratio: no curve is fitted: metrics.jsonl has it of {count} evaluations; '
    'must be at least 6 (eval.measures, eval.every)'
  ]


def test_a_folder_without_metrics_and_other_measures(tmp_path):
  assert 'metrics.jsonl has it of 0' in fits(tmp_path, (MASSIVE,))[1][0]
  assert fits(tmp_path, (MEASURES['spectrum'](),)) == ([], [])


def test_each_layer_has_the_points_that_are_finite(tmp_path):
  values = np.linspace(1, 2, 8)
  lines = [
    line(10 * i, x, None if i == 3 else 5.0, **{'train/loss': 3.0})
    for i, x in enumerate(values)
  ]
  (first, second), notes = fits(written(tmp_path, *lines), (MASSIVE,))
  assert (first.name, second.name, notes) == ('massive/ratio/0', 'massive/ratio/1', [])
  np.testing.assert_array_equal(first.values, values)
  np.testing.assert_array_equal(second.steps, [0, 10, 20, 40, 50, 60, 70])
  assert first.r2 > 0.99
  np.testing.assert_allclose(second.curve.at(second.steps), 5, rtol=1e-6)
  assert np.isnan(second.r2) and 'R2 nan of 7 evaluations' in second.described()
