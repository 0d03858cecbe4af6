"""The audit against the authors' loop, written out here, on logs in the form of theirs."""

import json
import math
import pathlib
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elas_jax import audit
from elas_jax.common.errors import UserError
from elas_jax.run import other_logs

LOGS = pathlib.Path(__file__).parent / 'fixtures/audit'


def published_n(rows, length, world, target=10_000_000):
  """Batches of the published loop, where every row has `length` tokens."""
  tokens, counter = 0, 1
  while not tokens > target:
    counter += 1
    tokens += rows * length * world
  return counter - 1


def audited(tmp_path, log, *flags):
  output = tmp_path / 'output.json'
  audit.main([str(log), f'--output={output}', *flags])
  return json.loads(output.read_text())


def written(tmp_path, text, name='log.txt'):
  path = tmp_path / name
  path.write_text(text) if isinstance(text, str) else path.write_bytes(text)
  return path


def error(*arguments):
  with pytest.raises(UserError) as caught:
    audit.main([str(x) for x in arguments])
  return str(caught.value)


# What the files have: of each evaluation (step, loss), and (rows, length, processes).
CASES = {
  'GaLore': [(1000, 4.125), (2000, 3.75), ('final', 3.5)],
  'LORO': [(1000, 4.0625), (2000, 3.8125), ('final', 3.203125)],
  'CoLA': [(1000, 3.3125), (2000, 3.0625), (2000, 3.03125)],
  'SLTrain': [(1000, 3.9375), (2000, 3.5625)],
}
SIZES = {
  'GaLore': [(256, 256, 1)] * 3,
  'LORO': [(128, 256, 2)] * 3,
  'CoLA': [(64, 256, 8)] * 3,
  'SLTrain': [(16, 512, 8), (64, 512, 4)],
}


@pytest.mark.parametrize('code', CASES)
def test_log_in_the_form_of(code, tmp_path, capsys):
  result = audited(tmp_path, LOGS / f'{code.lower()}.log')
  assert result['form'] == f'a log in the form of {code}'
  assert result['convention'] == 'published'
  rows = result['evaluations']
  assert [(row['step'], row['printed_loss']) for row in rows] == CASES[code]
  for row, sizes in zip(rows, SIZES[code], strict=True):
    n = published_n(*sizes)
    sum_of_means = row['printed_loss'] * (n + 1)
    assert (row['n'], row['n_known']) == (n, 'at least')
    right = np.exp(sum_of_means / n)
    np.testing.assert_allclose(row['perplexity'], right, rtol=1e-12)
    np.testing.assert_allclose(row['printed_perplexity'], np.exp(row['printed_loss']))
    more = 100 * (right / np.exp(row['printed_loss']) - 1)
    np.testing.assert_allclose(row['percent'], more, rtol=1e-9)
  out = capsys.readouterr().out
  assert 'divided by n = ' in out and f'at most {rows[-1]["perplexity"]:.6g}' in out
  assert 'as its form says' in out and 'cannot be undone without' in out


def test_lines_that_are_written_over_are_said(tmp_path, capsys):
  result = audited(tmp_path, LOGS / 'loro.log')
  lines = (LOGS / 'loro.log').read_text().split('\n')
  (line,) = [i for i, text in enumerate(lines, 1) if 'step 3000' in text]
  assert result['left_out'] == {'3000': line}
  assert (
    f'left out: step 3000 of line {line} has no result that can be read'
    in capsys.readouterr().out
  )


def test_evaluation_without_a_result_is_said(tmp_path):
  lines = [f'x - Performing evaluation at step {step}' for step in (10, 20, 30)]
  lines[1:1] = ['x - Eval loss at step 10: 3.0']
  lines[3:3] = ['x - Eval loss at step 20: 2.0']
  result = audited(tmp_path, written(tmp_path, '\n'.join(lines)), '--batches=2')
  assert [row['step'] for row in result['evaluations']] == [10, 20]
  assert result['left_out'] == {'30': 5}


def test_line_numbers_are_those_of_an_editor(tmp_path):
  rows = audited(tmp_path, LOGS / 'galore.log')['evaluations']
  lines = (LOGS / 'galore.log').read_bytes().split(b'\n')
  assert all(b'val loss' in lines[row['line'] - 1].lower() for row in rows)
  assert b'\r' in lines[rows[1]['line'] - 1]


def test_flags_go_before_the_log(tmp_path):
  log = LOGS / 'galore.log'
  of = lambda *flags: audited(tmp_path, log, *flags)['evaluations'][-1]
  given = of('--batches=7')
  assert (given['n'], given['n_known']) == (7, 'given')
  np.testing.assert_allclose(given['loss'], 3.5 * 8 / 7, rtol=1e-12)
  row = of('--length=190')
  assert (row['n'], row['n_known']) == (published_n(256, 190, 1), 'about')
  row = of('--batch_size=4', '--world_size=3', '--eval_tokens=5000')
  assert row['n'] == published_n(4, 256, 3, 5000)


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 8), st.integers(1, 5000))
@settings(max_examples=50, deadline=None)
def test_n_is_that_of_the_loop(rows, length, world, target):
  names = ('--batch_size', '--length', '--world_size', '--eval_tokens')
  sizes = [f'{name}={x}' for name, x in zip(names, (rows, length, world, target))]
  options = audit._parser().parse_args(['log', *sizes])
  found = other_logs.Evaluation(1, 1, 3.0, {})
  assert audit.count(found, options, 'log').n == published_n(rows, length, world, target)


losses = st.lists(st.floats(0.01, 12), min_size=1, max_size=40)


@given(losses)
@settings(max_examples=40, deadline=None)
def test_published_number_gives_the_mean_again(tmp_path_factory, losses):
  """The loss of each batch -> what the codes print of it -> the mean of the batches."""
  folder = tmp_path_factory.mktemp('property')
  printed = np.sum(losses) / (len(losses) + 1)
  log = written(folder, f'x - Eval loss at step 5: {printed}\n')
  (row,) = audited(folder, log, f'--batches={len(losses)}')['evaluations']
  np.testing.assert_allclose(row['loss'], np.mean(losses), rtol=1e-12)
  result = audited(folder, written(folder, json.dumps(losses), 'losses.json'))
  np.testing.assert_allclose(result['published']['loss'], printed, rtol=1e-12)
  np.testing.assert_allclose(result['mean']['loss'], np.mean(losses), rtol=1e-12)


LOSSES, TOKENS = [2.0, 3.5, 1.25], [10, 30, 4]
PAIRS = [{'loss': x, 'tokens': n} for x, n in zip(LOSSES, TOKENS)]
FORMS = {
  'list.json': (json.dumps(LOSSES), False),
  'pretty.json': (json.dumps(LOSSES, indent=2), False),
  'numbers.txt': (''.join(f'{x}\n' for x in LOSSES), False),
  'object.json': (json.dumps({'losses': LOSSES}), False),
  'tokens.json': (json.dumps({'losses': LOSSES, 'tokens': TOKENS}, indent=1), True),
  'pairs.json': (json.dumps(PAIRS), True),
  'pairs.jsonl': ('\r\n'.join(map(json.dumps, PAIRS)), True),
}


@pytest.mark.parametrize('name', FORMS)
def test_losses_of_batches(name, tmp_path, capsys):
  text, by_tokens = FORMS[name]
  result = audited(tmp_path, written(tmp_path, text, name))
  truth = {'published': sum(LOSSES) / 4, 'mean': np.mean(LOSSES)}
  if by_tokens:
    truth['token'] = np.average(LOSSES, weights=TOKENS)
  assert result['batches'] == 3
  assert {'published', 'mean', 'token'} & result.keys() == truth.keys()
  for convention, loss in truth.items():
    np.testing.assert_allclose(result[convention]['loss'], loss, rtol=1e-12)
    np.testing.assert_allclose(result[convention]['perplexity'], np.exp(loss), rtol=1e-12)
  best = truth['token' if by_tokens else 'mean']
  more = 100 * (np.exp(best - truth['published']) - 1)
  np.testing.assert_allclose(result['percent'], more, rtol=1e-12)
  out = capsys.readouterr().out
  assert f'prints {np.exp(truth["published"]):.6g}; the perplexity' in out
  assert ('cannot be undone without' in out) != by_tokens


def test_metrics_of_this_code_have_both(tmp_path, capsys):
  own = {'eval/loss': 2.5, 'eval/published_loss': 2.25, 'eval/perplexity': math.exp(2.5)}
  lines = [{'run': {'commit': 'x'}}, {'step': 5, 'train/loss': 4.0}, {'step': 5, **own}]
  text = '\n'.join(map(json.dumps, lines))
  for log in (
    written(tmp_path, text, 'metrics.jsonl'),
    written(tmp_path, json.dumps({'step': 5, **own}, indent=2), 'evaluation.json'),
  ):
    (row,) = audited(tmp_path, log)['evaluations']
    assert (row['step'], row['printed_loss'], row['loss']) == (5, 2.25, 2.5)
    np.testing.assert_allclose(row['percent'], 100 * (np.exp(0.25) - 1), rtol=1e-12)
    assert 'weighted by tokens it is 12.1825, +28.4 %.' in capsys.readouterr().out
    assert '--convention=mean' in error(log, '--convention=mean')
  assert '--batches=3: ' in error(log, '--batches=3')


def test_json_of_a_logger(tmp_path):
  """Where training's losses stand beside the evaluations of the four codes."""
  lines = [
    {'loss': 9.0, 'lr': 0.1, '_step': 1},
    {'final_eval_loss': 3.0, 'final_eval_tokens': 10_000_123, '_step': 2},
    {'final_eval_perplexity': math.exp(2.75), '_step': 4},
  ]
  log = written(tmp_path, '\n'.join(map(json.dumps, lines)), 'history.jsonl')
  rows = audited(tmp_path, log, '--batches=10')['evaluations']
  assert [row['step'] for row in rows] == [2, 4]
  np.testing.assert_allclose([row['loss'] for row in rows], [3.3, 3.025], rtol=1e-12)


def test_convention_that_the_form_does_not_say(tmp_path, capsys):
  log = written(tmp_path, '{"eval_loss": 3.0, "batches": 4, "step": 8}', 'one.json')
  assert 'eval_loss' in error(log) and 'give --convention, one of published' in error(log)
  of = lambda name: audited(tmp_path, log, f'--convention={name}')['evaluations'][0]
  np.testing.assert_allclose(of('published')['loss'], 3.75, rtol=1e-12)
  for name in ('mean', 'token'):
    capsys.readouterr()
    assert (of(name)['loss'], of(name)['percent']) == (3.0, 0)
    assert ('cannot be undone' in capsys.readouterr().out) == (name == 'mean')


FORM = "Eval loss at step S: LOSS' (GaLore, LORO)"
BOTH = 'Eval loss and perplexity at step'
ERRORS = {
  'empty': ('', ['log.txt: is empty', FORM]),
  'blank': ('\n \n', ['log.txt: is empty', FORM]),
  'binary': (b'\x7fELF\n\0\0\1\n', ['log.txt: line 2 is not text', FORM]),
  'unknown': ('epoch 1: loss 3\n', ['log.txt: no evaluation found', FORM]),
  'other': ('x - Eval loss: 3.0\nstep 5: val loss 3.0\n', ['no evaluation found', FORM]),
  'none': ('a - Starting training with the arguments\n', ['no evaluation found', FORM]),
  'over': (
    'a\nb - Eval loss at step 5: 3.5 seconds\n',
    [
      'the evaluation of step 5 in line 2 has no result that can be read',
      FORM,
    ],
  ),
  'nan': (
    '\nb - Eval loss at step 5: nan\n',
    ['log.txt: line 2: the loss is nan; must be'],
  ),
  'infinite': ('Final eval loss: inf\n', ['line 1: the loss is inf; must be a number']),
  'negative': ('Final eval loss: -1.0\n', ['line 1: the loss is -1.0; must be a number']),
  'large': ('Final eval loss: 301\n', ['line 1: the loss is 301.0', 'from 0 to 300']),
  'perplexity': (
    f'{BOTH} 5: 3.0, 21.5\n',
    ['line 1: the perplexity is 21.5; must be e^loss, 20.0855'],
  ),
  'n': (
    'a\nFinal eval loss: 3.0\n',
    ['line 2: n, the number', '--batches=N', ': --batch_size, --length, --world_size'],
  ),
  'processes': (
    'x - batch_size                     3\nx - max_length   8\nFinal eval loss: 3.0\n',
    ['line 3: n, the number', 'of B, L and W: --world_size'],
  ),
  'sizes of the run before': (
    'x - batch_size                     3\nx - Starting training with the arguments\n'
    'x - max_length                     8\nFinal eval loss: 3.0\n',
    ['line 4: n, the number', 'of B, L and W: --batch_size, --world_size'],
  ),
  'json': ('{"a": 1}\n{"b": \n', ['log.txt: line 2: not JSON', FORM]),
  'pretty': ('{\n"a": 1,\n"b": ]\n}', ['log.txt: line 3: not JSON', FORM]),
  'deep': ('{\n"a": ' + '[' * 100_000, ['line 1: not JSON', FORM]),
  'null': ('[1.0,\nnull]\n', ['line 1, entry 1: the loss is None; must be a number']),
  'bracket': ('[rank0]: a\n[1]\n', ['no evaluation found']),
  'clock': ('[2024-01-02 03:04:05] Final eval loss: nan\n', ['line 1: the loss is nan']),
  'zero': (
    'x - batch_size                     0\nFinal eval loss: 3.0\n',
    ['line 2: n, the number', 'of B, L and W: --batch_size'],
  ),
  'digits': (f'Eval loss at step {"9" * 5000}: 3.0\n', ['no evaluation found']),
  'null batch': ('[1.0, null]\n', ['line 1, entry 1: the loss is None; must be a number']),
  'text batch': ('["text"]\n', ["line 1, entry 0: the loss is 'text'; must be a number"]),
  'true': ('[1, true]', ['line 1, entry 1: the loss is True; must be a number']),
  'huge': ('[1' + '0' * 400 + ']', ['line 1, entry 0: the loss is 1000']),
  'some tokens': (
    '{"loss": 1, "tokens": 2}\n{"loss": 1}\n',
    ["line 2: must have 'tokens' in every batch or in none"],
  ),
  'late tokens': (
    '{"loss": 1}\n{"loss": 1, "tokens": 2}\n',
    ["line 2: must have 'tokens' in every batch or in none"],
  ),
  'no tokens': ('{"loss": 1, "tokens": 0}', ['tokens=0; must be an integer above 0']),
  'fewer': ('{"losses": [1], "tokens": []}', ["'tokens' must be a list of 1"]),
  'no batches': ('{"losses": []}', ['no evaluation found', FORM]),
  'two forms': (
    '{"eval/loss": 1}\n{"eval/loss": 1, "eval/published_loss": 1}\n',
    ['line 2: metrics of elas_jax', 'before it is JSON with eval/loss', 'split the file'],
  ),
  'mixed': ('{"eval_loss": 1}\n2.0\n', ['of batches and of whole evaluations']),
  'null metrics': (
    '{"run": {}}\n{"step": 1, "eval/loss": null, "eval/published_loss": null}',
    ['line 2: the loss is None'],
  ),
  'perplexity below 1': ('{"eval_perplexity": 0.5}', ['line 1: the perplexity is 0.5']),
}


@pytest.mark.parametrize('name', ERRORS)
def test_error_of_a_file(name, tmp_path):
  text, parts = ERRORS[name]
  message = error(written(tmp_path, text))
  for part in parts:
    assert part in message
  assert len(message) < 1000


def test_errors_of_flags(tmp_path):
  log = LOGS / 'galore.log'
  copy = written(tmp_path, log.read_text())
  before = copy.read_text()
  loss = written(tmp_path, '[1.0]', 'losses.json')
  for arguments, part in (
    ([tmp_path], f'{tmp_path}: Is a directory; must be a file'),
    ([tmp_path / 'none'], 'none: No such file or directory; must be a file'),
    ([log, '--convention=sum'], 'must be one of published, mean, token'),
    ([log, '--batches=0'], "'0': must be an integer from 1"),
    ([log, '--batches=3', '--length=3'], '--batches=3: is n already; leave out --length'),
    ([log, '--convention=mean', '--batches=3'], '--batches=3: nothing is divided'),
    ([log, '--steps=3'], '--steps=3'),
    ([copy, f'--output={copy}'], 'is the log that is read'),
    ([log, f'--output={tmp_path}'], 'must be a file in a folder that is there'),
    ([log, f'--output={tmp_path}/a/b.json'], 'must be a file in a folder that is there'),
    ([loss, '--convention=mean'], 'losses.json has the loss of every batch'),
    ([loss, '--batches=1'], '--batches=1: '),
  ):
    assert part in error(*arguments), arguments
  assert copy.read_text() == before


def test_larger_than_memory_is_read_by_lines(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(other_logs, 'LONGEST_LINE', 64)
  monkeypatch.setattr(other_logs, 'LARGEST_JSON', 1000)
  bar = 'Update steps: |' + ' ' * 200 + '\r'
  log = written(tmp_path, bar * 50 + '\nFinal eval loss: 3.0\n')
  (row,) = audited(tmp_path, log, '--batches=2')['evaluations']
  assert (row['line'], row['loss']) == (2, 4.5)
  lines = written(tmp_path, '2.0\n' * 1000, 'lines.jsonl')
  assert audited(tmp_path, lines)['batches'] == 1000
  one = written(tmp_path, json.dumps([2.0] * 1000), 'one.json')
  assert re.search(r'line 1 begins one JSON value .* JSON lines may be longer', error(one))


def test_help_names_what_is_accepted(capsys):
  with pytest.raises(SystemExit):
    audit.main(['--help'])
  out = ' '.join(capsys.readouterr().out.split())
  for word in ('--batches', '--convention', '--output', 'SLTrain', 'final_eval_loss'):
    assert word in out


NAMES = ('loss', 'losses', 'tokens', 'step', 'batches', 'eval_loss', 'eval/loss')
NAMES += ('eval/published_loss', 'final_eval_perplexity', 'batch_size', 'max_length')
VALUES = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.just(10**400) | st.text(),
  lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
  ),
  max_leaves=8,
)
FORM_LINES = st.builds(
  'x - {}{}{}'.format,
  st.sampled_from(['Final eval loss: ', 'Eval loss at step 5: ', BOTH + ' 5: ']),
  st.floats().map(str) | st.text(),
  st.sampled_from(['', ', 20.0', '\r', ' | ']),
)


@given(
  st.lists(VALUES.map(json.dumps) | FORM_LINES | st.text(), max_size=4).map('\n'.join),
  st.sampled_from([[], ['--batches=3'], ['--convention=published']]),
  st.sampled_from(['log.txt', 'log.json']),
)
@settings(max_examples=60, deadline=None)
def test_any_file_is_audited_or_refused_in_a_line(tmp_path_factory, text, flags, name):
  folder = tmp_path_factory.mktemp('any')
  log = written(folder, text.encode(errors='replace'), name)
  try:
    result = audited(folder, log, *flags)
  except UserError as caught:
    assert str(caught).startswith((str(log), '--batches', '--convention'))
  else:
    assert result['verdict']
