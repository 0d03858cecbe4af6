"""What the panels say, in terminals of any width and height."""

import io
import json
import os

import pytest
from rich.console import Console

from elas_jax.run.follow import Followed
from elas_jax.run.panels import ASCII_BLOCKS, bar, duration, picture, sparkline

NOW = 1000.0
LINES = [
  {'run': {}},
  {'step': 0, 'note': 'data changed\x1b[31m [red]since[/red]'},
  {'step': 20, 'train/loss': 4.0},
  {'step': 20, 'eval/loss': 3.75, 'eval/perplexity': 42.5, 'eval/tokens': 123456.0}
  | {'activations/zero_fraction': 0.625, 'activations/zero_fraction/0': 0.11},
  {'step': 21, 'activations/flip_rate': None},
  {
    'step': 40,
    'train/loss': 3.5,
    'train/perplexity': 33.1,
    'train/bits_per_byte': 2.25,
    'train/grad_norm': 0.75,
    'train/learning_rate': 2e-3,
    'train/tokens_per_second': 4000.0,
    'train/objective/penalty': 0.125,
  },
]


def make(folder, lines=LINES, age=0.0):
  folder.mkdir()
  data = {'batch_size': 8, 'sequence_length': 500}
  config = {'train': {'steps': 160, 'log_every': 20}, 'data': data}
  (folder / 'config.json').write_text(json.dumps(config))
  path = folder / 'metrics.jsonl'
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  os.utime(path, (NOW - age, NOW - age))
  return followed(folder)


def followed(folder):
  run = Followed(folder)
  run.poll()
  return run


def shown(*runs, width=80, height=None, encoding='utf-8'):
  """The lines of the picture."""
  raw = io.BytesIO()
  file = io.TextIOWrapper(raw, encoding=encoding)
  console = Console(file=file, width=width, force_terminal=False, color_system=None)
  console.print(picture(runs, console, NOW, 60, height))
  file.flush()
  return raw.getvalue().decode(encoding).splitlines()


def within(lines):
  """The lines of one panel without its border."""
  return [line[2:-2].rstrip() for line in lines[1:-1]]


def test_everything_that_a_run_says(tmp_path):
  lines = shown(make(tmp_path / 'run'), width=52)
  assert 'run' in lines[0]
  found = within(lines)
  assert found == [
    'running, about 2 min left',  # 120 steps of 4000 tokens
    'step 40 of 160 (25%)',
    '█' * 12 + '░' * 36,
    '█▁',
    'loss              3.5000',
    'bits/byte         2.2500',
    'learning rate     2.00e-03',
    'gradient norm     0.75',
    'tokens/s          4,000',
    'objective/penalty 0.125',
    'validation of step 20',
    'loss              3.7500',
    'perplexity        42.500',
    'note of step 0: data changed?[31m',
    '[red]since[/red]',
    'activations of step 21',
    'flip_rate         not finite',
    'activations of step 20',
    'zero_fraction     0.625',
  ]


def test_states_are_said(tmp_path):
  first = lambda run: within(shown(run))[0]
  assert first(make(tmp_path / 'stalled', age=240)) == 'stalled: no new line for 4 min'
  ended = [*LINES, {'step': 60, 'eval/loss': None}]
  run = make(tmp_path / 'diverged', ended)
  assert first(run) == 'stopped: a loss or a gradient is not finite'
  run = make(tmp_path / 'in_training')
  (tmp_path / 'in_training/diverged.json').write_text('{"step": 41}')
  assert first(run) == 'stopped: a loss or a gradient is not finite'
  (tmp_path / 'new').mkdir()
  assert within(shown(followed(tmp_path / 'new'))) == ['not begun: no config.json yet']


def test_damage_stands_in_its_panel_and_the_others_go_on(tmp_path):
  run, other = make(tmp_path / 'a', [*LINES, {'loss': 1}]), make(tmp_path / 'b')
  lines = shown(run, other, width=100)
  left = [line[2:48].rstrip() for line in lines]
  assert left[2:4] == ["metrics.jsonl: line 7 is damaged (no 'step' in", 'it)']
  assert sum('step 40 of 160' in line for line in lines) == 2
  assert sum('damaged' in line for line in lines) == 1


@pytest.mark.parametrize(
  'width, beside', [(140, 3), (120, 3), (119, 2), (80, 2), (79, 1), (40, 1)]
)
def test_as_many_beside_each_other_as_there_is_room_for(tmp_path, width, beside):
  runs = [make(tmp_path / f'run_{i}') for i in range(3)]
  lines = shown(*runs, width=width)
  assert all(len(line) <= width for line in lines)
  titles = [line.count('run_') for line in lines if 'run_' in line]
  assert titles == [beside] * (3 // beside) + [3 % beside] * (3 % beside > 0)
  for text in ('40 of 160', '3.5000', '3.7500', '4,000', '2.00e-03'):
    assert sum(line.count(text) for line in lines) == 3, text


@pytest.mark.parametrize('width', [40, 20, 8])
def test_no_line_is_wider_than_a_narrow_terminal(tmp_path, width):
  lines = shown(make(tmp_path / 'run'), width=width)
  assert all(len(line) <= width for line in lines) and len(lines) > 20


def test_low_terminals_show_what_matters_most(tmp_path):
  runs = [make(tmp_path / name) for name in 'ab']
  lines = shown(*runs, width=44, height=20)
  assert len(lines) == 20
  found = within(lines[:10])
  assert found[0] == 'running, about 2 min left' and found[1] == 'step 40 of 160 (25%)'
  assert found[-1].startswith('... ') and found[-1].endswith(' lines more')
  assert len(found) - 1 + int(found[-1].split()[1]) == len(within(shown(runs[0], width=44)))


def test_many_runs_have_a_line_each(tmp_path):
  runs = [make(tmp_path / f'run_{i}') for i in range(9)]
  runs += [make(tmp_path / 'new', []), make(tmp_path / 'bad', [*LINES, {'loss': 1}])]
  lines = shown(*runs, width=40, height=20)
  assert len(lines) == 11 and all(len(line) <= 40 for line in lines)
  said = [line.split()[1:] for line in lines]
  assert said[:9] == [['running', '25%', '3.5000']] * 9
  assert said[9:] == [['running', '0%'], ['damaged', '25%', '3.5000']]
  assert [line.split()[0][-5:] for line in lines[:9]] == [f'run_{i}' for i in range(9)]
  assert len(shown(*runs, width=80, height=20)) == 6


def test_terminals_without_unicode(tmp_path):
  found = within(shown(make(tmp_path / 'run'), width=52, encoding='ascii'))
  assert '#' * 12 + '.' * 36 in found and '#.' in found


def test_bar():
  assert bar(0.0, 4) == '░░░░' and bar(0.999, 4) == '███░' and bar(1.0, 4) == '████'


def test_sparkline():
  line = lambda values, width, **options: sparkline(
    list(enumerate(values)), width, **options
  )
  assert line([0, 1, 2, 3, 4, 5, 6, 7], 8) == '▁▂▃▄▅▆▇█'
  assert line([7, 7, 0, 0], 2) == '█▁'  # means of two each
  assert line([2.0], 9) == '▁' and line([2.0, 2.0], 9) == '▁▁'
  assert len(line(range(1000), 36)) == 36
  # A first loss far above the others leaves these apart.
  assert line([9000, *range(7, -1, -1)] + [0] * 3, 20)[:3] == '██▇'
  assert line([1, 0], 2, blocks=ASCII_BLOCKS) == '#.'


@pytest.mark.parametrize(
  'seconds, said',
  [
    (0, '0 s'),
    (89, '89 s'),
    (150, '2 min'),
    (3599, '1 h 00 min'),
    (11100, '3 h 05 min'),
    (2 * 86400 + 4 * 3600, '2 d 4 h'),
  ],
)
def test_duration(seconds, said):
  assert duration(seconds) == said
