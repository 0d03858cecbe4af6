"""Plots of whatever a run has written so far."""

import json
import math
import types

import numpy as np
import pytest
from matplotlib import image

from elas_jax.run.metrics import MetricsWriter
from elas_jax.run.plots import plot_measures, plot_run
from elas_jax.train import report
from tests.conftest import thinned

TRAIN = {
  'train/loss': 3.0,
  'train/bits_per_byte': 4.0,
  'train/grad_norm': 1.0,
  'train/learning_rate': 0.0,  # the first of a warm-up from zero, on a logarithmic axis
  'train/tokens_per_second': 1e4,
}
OF_TRAIN = {'loss.png', 'bits_per_byte.png', 'optimizer.png', 'speed.png'}
OF_EVAL = {'loss.png', 'bits_per_byte.png', 'spectrum.png'}
EVAL = {'eval/loss': 3.1, 'eval/bits_per_byte': 4.1}


@pytest.mark.usefixtures('plots')
@pytest.mark.parametrize('tensorboard', [False, True])
def test_report_of_a_finite_loss_with_infinite_perplexity(
  trained, tmp_path, capsys, tensorboard
):
  """e^loss overflows at a loss of 710, which a run may start with."""
  if tensorboard:
    pytest.importorskip('tensorboardX')
  config, _ = trained
  loss = {'loss': 800.0, 'perplexity': math.inf, 'bits_per_byte': 1154.2}
  writer = MetricsWriter(tmp_path, 0, tensorboard)
  for step in (1, 2):
    writer.write(step, {f'train/{name}': value for name, value in loss.items()})
    writer.write(step, {f'eval/{name}': value for name, value in loss.items()})
  writer.close()
  last = report(config, tmp_path, None, types.SimpleNamespace(step=2))
  assert last['eval/perplexity'] is None
  printed = capsys.readouterr().out
  assert 'at step 2: perplexity infinite, bits per byte 1154.2000' in printed
  assert (tmp_path / 'plots/loss.png').exists()
  for line in (tmp_path / 'metrics.jsonl').read_text().splitlines():
    json.loads(line, parse_constant=lambda name: pytest.fail(name))


@pytest.mark.parametrize(
  'lines, expected',
  thinned(
    [
      ([], set()),
      ([TRAIN], OF_TRAIN),
      ([TRAIN, TRAIN | EVAL | {'train/learning_rate': 1e-3}], OF_TRAIN),
      ([TRAIN, TRAIN | {'train/loss': float('nan')}], OF_TRAIN),
      ([EVAL], {'loss.png', 'bits_per_byte.png'}),
      ([TRAIN, EVAL | {'activations/flip_rate': 0.1}], OF_TRAIN | {'activations.png'}),
      ([EVAL | {'spectrum/stable_rank': 2.0, 'spectrum/stable_rank/head': 3.0}], OF_EVAL),
    ],
    ([], set()),
    ([TRAIN, EVAL | {'activations/flip_rate': 0.1}], OF_TRAIN | {'activations.png'}),
  ),
)
def test_plots_are_written(tmp_path, lines, expected):
  writer = MetricsWriter(tmp_path, 0, False)
  for number, values in enumerate(lines):
    writer.write(number + 1, values)
  writer.close()
  paths = plot_run(tmp_path)
  assert sorted(paths) == sorted((tmp_path / 'plots').iterdir())
  names = {path.name for path in paths}
  assert names == expected
  for path in paths:
    pixels = image.imread(path)
    assert pixels.shape[0] > 300
    assert pixels[..., :3].std() > 0.01  # axes at least


@pytest.mark.parametrize('name', ['loss.png', 'speed.png'])
def test_a_single_point_shows(tmp_path, name):
  writer = MetricsWriter(tmp_path, 0, False)
  writer.write(1, TRAIN)
  writer.close()
  plot_run(tmp_path)
  pixels = image.imread(tmp_path / 'plots' / name)[..., :3]
  height, width, _ = pixels.shape
  middle = pixels[height // 3 : -height // 3, width // 3 : -width // 3]
  blue = np.array([0x1F, 0x77, 0xB4]) / 255
  assert (abs(middle - blue).max(axis=-1) < 0.05).sum() > 5


def test_values_over_the_layers_and_bars_without(tmp_path):
  deep = {'rank': 2.0, 'rank/up': [1.0, 2.0, 3.0], 'rank/head': 4.0, 'norm/up': [5.0] * 3}
  values = {'spectrum': {name: np.array(x) for name, x in deep.items()}}
  (path,) = plot_measures(tmp_path, values, 7)
  assert path == tmp_path / 'plots/measure_spectrum.png'
  two_panels = image.imread(path).shape[0]
  flat = {'spectrum': {name: np.array(0.5) for name in ('rank', 'rank/a', 'rank/b')}}
  plot_measures(tmp_path, flat, 7)
  pixels = image.imread(path)
  assert two_panels > 1.8 * pixels.shape[0]
  blue = np.array([0x1F, 0x77, 0xB4]) / 255
  of_bars = abs(pixels[..., :3] - blue).max(-1) < 0.05
  assert of_bars.mean() > 0.3
