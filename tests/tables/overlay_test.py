"""Curves of sides in one picture."""

import pathlib

import numpy as np
from matplotlib import image

from elas_jax.run.record import Recorded
from elas_jax.tables.overlay import mean_curve, overlay
from elas_jax.tables.sides import Side


def side(label, *losses):
  """Of a seed for each loss, whose curves fall from 100 times as much."""
  curve = lambda x: {'train/loss': [[1, 100 * x], [8, x]], 'eval/loss': [[8, x]]}
  runs = {s: Recorded('', {}, 'finished', curve=curve(x)) for s, x in enumerate(losses)}
  return Side(label, (label,), runs, (), (), None)


def test_mean_is_over_the_steps_that_all_have():
  curves = [[[1, 2.0], [2, 4.0], [3, 1.0]], [[1, 4.0], [3, 3.0]]]
  assert mean_curve(curves) == [(1, 3.0), (3, 2.0)]
  assert mean_curve(curves[:1]) == [(1, 2.0), (2, 4.0), (3, 1.0)]
  assert mean_curve([]) == []


def test_sides_have_colours_of_their_own(tmp_path):
  path = tmp_path / 'new/curves.png'
  assert overlay(path, [side('a', 1.0, 2.0), side('b', 3.0)], 'PROXY')
  pixels = image.imread(path)[..., :3].reshape(-1, 3)
  for colour in ((0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)):  # C0 and C1
    assert (np.abs(pixels - np.divide(colour, 255)).max(1) < 0.01).sum() > 100
  assert list(path.parent.iterdir()) == [path]


def test_without_curves_there_is_no_picture(tmp_path):
  without = Side('a', ('a',), {0: Recorded('', {}, 'finished')}, (), (), None)
  assert not overlay(pathlib.Path(tmp_path / 'curves.png'), [without, side('b')])
  assert not list(tmp_path.iterdir())
