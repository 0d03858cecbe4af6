"""What a table says of its runs: means and spread, gaps, the page and the figure."""

import numpy as np
import pytest
from matplotlib import image

from experiments import report, runs
from tests.experiments.fake_runs import values


def finished_runs(numbers):
  run = {'status': 'finished', 'commit': 'a' * 40}
  return [run | {'seed': i, 'values': values(bits)} for i, bits in enumerate(numbers)]


def test_mean_and_spread_by_hand():
  entry = lambda label, bits: {'label': label, 'size': 's', 'runs': finished_runs(bits)}
  entries = [entry('a', (2.0, 2.2, 2.4)), entry('b', (1.9, 2.3, 2.1))]
  mean, std = report.spread(entries[0]['runs'])
  assert mean['eval/bits_per_byte'] == pytest.approx(2.2)
  assert std['eval/bits_per_byte'] == pytest.approx(0.2)
  assert report.spread(entries[0]['runs'][:1])[1] == {}
  (found,), (line,) = report.gaps(entries, (('a', 'b'),))
  assert found['mean']['eval/bits_per_byte'] == pytest.approx(0.1)
  assert found['std']['eval/bits_per_byte'] == pytest.approx(0.2)
  assert line == (
    'a - b (s): bits per byte +0.1000 ± 0.2000; perplexity +1.000 ± 2.000; perplexity, '
    'published convention +0.500 ± 1.000 (paired, seeds 0, 1, 2)'
  )
  entries[1]['runs'][0]['status'] = 'diverged'
  (found,), _ = report.gaps(entries, (('a', 'b'),))
  assert found['seeds'] == [1, 2]
  assert found['mean']['eval/bits_per_byte'] == pytest.approx(0.1)


def test_markdown_is_as_recorded():
  finished = finished_runs((2.0, 2.2, 2.4))
  mean, std = report.spread(finished)
  row = {'label': 'elas', 'method': 'elas', 'size': 'proxy', 'problem': ''}
  row['published'] = [{'size': '60m', 'value': '34.12', 'source': 'ELAS', 'mark': 'S'}]
  row['runs'] = [*finished, {'seed': 3, 'status': 'diverged', 'step': 178}]
  row |= {'mean': mean, 'std': std, 'parameters': 1234567, 'learning_rate': 0.008}
  row |= {'parameter_bytes': 2e6, 'buffer_bytes': 5e5, 'optimizer_bytes': 4e6}
  result = {'title': 'A table', 'scale': 'proxy', 'label': runs.SCALES['proxy'].label}
  result |= {'complete': True, 'command': 'python -m experiments.a', 'overrides': []}
  result |= {'run': {'time': 'now', 'versions': {'jax': '0.0'}}, 'machine': '2 cores'}
  result |= {'metrics': report.METRICS[:1], 'text': ['a gap'], 'rows': [row]}
  lines = report.markdown(result).splitlines()
  assert lines[0] == '# A table'
  assert lines[2].startswith("**Scale: PROXY, not the paper's scale")
  assert lines[4:7] == [
    '| row | published C4 perplexity | bits per byte | parameters | parameters + optimiser '
    '| learning rate | non-finite loss |',
    '|---|---|---|---|---|---|---|',
    '| elas | 60m 34.12 [S] | 2.2000 ± 0.2000 (3 of 4 seeds) | 1,234,567 | 6.50 MB | 0.008 '
    '| seed 3 at step 178, none in 3 runs |',
  ]
  assert lines[8] == '- a gap'
  assert '- Published: ELAS [S] for elas.' in lines
  assert 'Runs at commit aaaaaaaaaaaa.' in lines[-1]
  assert 'Incomplete' not in '\n'.join(lines)
  assert '**Incomplete' in report.markdown(result | {'complete': False})


def test_the_figure_has_spreads_and_says_what_is_missing(tmp_path):
  """A table of one row with a spread, one of a single run, and one without a value."""

  def row(label, bits):
    mean, std = report.spread(finished_runs(bits))
    return {'label': label, 'size': 'proxy', 'mean': mean, 'std': std}

  rows = [row('wide', (1.0, 3.0)), row('single', (2.0,)), row('diverged', ())]
  result = {'title': 'A table', 'label': 'PROXY: small', 'metrics': report.METRICS}
  pixels = {}
  for complete in (True, False):
    path = tmp_path / f'{complete}.png'
    report.plot(result | {'rows': rows, 'complete': complete}, path)
    pixels[complete] = image.imread(path)[..., :3]
  assert np.abs(pixels[True] - pixels[False]).max() > 0.5  # its title says so
  blue = np.abs(pixels[True] - np.array([0x1F, 0x77, 0xB4]) / 255).max(-1) < 0.05
  widths = [np.ptp(np.flatnonzero(line)) for line in blue if line.any()]
  assert max(widths) > 10 * min(widths)  # an error bar, and a point without
