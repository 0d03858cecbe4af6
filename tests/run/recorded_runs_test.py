"""Every run that is recorded is found by its config, whatever fields come after it."""

import collections
import dataclasses
import functools
import inspect
import json
import pathlib
import re
import shlex
import shutil

import pytest

from elas_jax.common.errors import UserError
from elas_jax.config.cli import load_config
from elas_jax.config.config import SECTIONS, MeshConfig, filled
from elas_jax.config.migrate import lifted
from elas_jax.config.parsing import parse
from elas_jax.run import record
from elas_jax.run.continuation import load_past
from elas_jax.run.ended import size_of
from elas_jax.run.record import Record, line_of, read
from elas_jax.run.revisions import revisions
from elas_jax.systems.feed_forwards.relu2_two_four import TwoFourSquaredReLU
from elas_jax.train import train
from tests.conftest import ROOT
from tests.finished_runs import computed
from tests.run.versions_test import FIXTURES, WORKDIRS, assert_recorded
from tests.run.younger_fields import CLASSES, PLAIN, one_more_field, remade, sections

PATH = ROOT / 'experiments/results/runs.jsonl'
FIRST = 963  # lines, which were there when the file began; it only grows


@functools.cache
def lines() -> list[bytes]:
  return PATH.read_bytes().splitlines(keepends=True)


@functools.cache
def trees() -> list[dict]:
  return [json.loads(line) for line in lines()]


@pytest.fixture
def synthetic():
  """Every section and every kind has a field that no run has heard of."""
  with one_more_field(CLASSES):
    yield


def identity(tree: dict) -> tuple:
  """Of a line: two lines with the same are the same run, made twice."""
  return tree['fingerprint'], tuple(tree.get('revisions', ()))


def of_today(tree: dict) -> dict:
  """The fingerprint of the data stood among the versions at first."""
  versions = dict(tree.get('versions', {}))
  data = versions.pop('data', None)
  return tree | {'versions': versions, 'data': data} if data else tree


def check_all_are_found(path=PATH):
  runs, known = read(path), [json.loads(x) for x in path.read_bytes().splitlines()]
  last = {identity(tree): of_today(tree) for tree in known}
  of = Record(runs)
  assert len(runs) == len(known) and len(of.runs) == len(last)
  for run, tree in zip(runs, known):
    found, own = of.find(run.parsed), set(revisions(run.parsed))
    if not own <= set(run.revisions) and not found:  # and it was not made again since
      found = of.before(run.parsed)
      assert found
    if found.revisions == run.revisions:
      assert json.loads(line_of(found)) == last[identity(tree)]
    else:
      assert set(run.revisions) < own == set(found.revisions)


def test_every_recorded_run_is_found_by_its_config():
  assert len(trees()) >= FIRST
  names = collections.Counter(tree['fingerprint'] for tree in trees()[:FIRST])
  # Two of before a revision were made twice.
  assert len(names) == 961 and sorted(names.values())[-3:] == [1, 2, 2]
  check_all_are_found()


@pytest.fixture
def some(tmp_path):
  """A record of the first run with each kind, and of every tenth."""
  seen, kept = set(), []
  for number, line in enumerate(lines()):
    kinds = set(re.findall(rb'"(?:kind|task)":"\w+"', line))
    if number % 10 == 0 or not kinds <= seen:
      seen |= kinds
      kept.append(line)
  path = tmp_path / 'runs.jsonl'
  path.write_bytes(b''.join(kept))
  return path


@pytest.mark.parametrize(
  'every', [False, pytest.param(True, marks=pytest.mark.conformance)], ids=['some', 'all']
)
def test_recorded_runs_are_found_after_one_more_field_of_each_section(
  every, some, synthetic
):
  config = read(some)[0].parsed
  assert config.synthetic == config.model.linear.synthetic == config.mesh.synthetic == 7.0
  check_all_are_found(PATH if every else some)


def parts_of(config):
  """The sections of a config, itself included."""
  inner = (getattr(config, field.name) for field in dataclasses.fields(config))
  return [config] + [y for x in inner if dataclasses.is_dataclass(x) for y in parts_of(x)]


def test_a_run_with_another_value_of_that_field_is_not_found(some, synthetic):
  runs = read(some)
  known = Record(runs)
  first = {type(x): run.parsed for run in runs for x in parts_of(run.parsed)}
  of_tasks = [cls for run in runs for cls in SECTIONS[run.parsed.task].values()]
  assert first.keys() >= {*sections(), *of_tasks} and len(first) > len(PLAIN) + 35

  def other(part, cls):
    if not dataclasses.is_dataclass(part):
      return part
    fields = dataclasses.fields(part)
    new = {x.name: other(getattr(part, x.name), cls) for x in fields}
    new |= {'synthetic': 8.0} if type(part) is cls else {}
    return dataclasses.replace(part, **new)

  for cls, config in first.items():
    assert known.find(config) or known.before(config)
    changed = other(config, cls)
    assert not known.find(changed) and not known.before(changed), cls


def test_a_changed_default_changes_no_recorded_run(some):
  runs = read(some)
  keys = [run.key for run in runs]
  is_pruned = lambda x: isinstance(getattr(x.model, 'feed_forward', 0), TwoFourSquaredReLU)
  config = next(x.parsed for x in runs if is_pruned(x.parsed) and not revisions(x.parsed))
  assert config.model.feed_forward.implementation == 'auto'
  changed = dataclasses.replace(config.model.feed_forward, implementation='xla')
  model = dataclasses.replace(config.model, feed_forward=changed)
  changed = dataclasses.replace(config, model=model)
  own = inspect.get_annotations(TwoFourSquaredReLU)
  with remade(TwoFourSquaredReLU, own, implementation='xla'):
    assert TwoFourSquaredReLU().implementation == 'xla'
    runs = read(some)
    assert [run.key for run in runs] == keys
    assert Record(runs).find(config) and not Record(runs).find(changed)


def test_no_recorded_config_names_a_place_of_a_machine():
  for number, tree in enumerate(trees(), start=1):
    text = json.dumps(tree['config'])
    assert not re.search(r'"(/|~|[^"]*(home|cache|work|tmp)/)', text), number
    for field in record.LEFT_OUT:
      section, name = field.split('.')
      assert name not in tree['config'][section], number


def test_a_config_of_before_there_were_kinds_is_that_of_today():
  """The command of the fixture in the names of today; its prompt was that of text."""
  words = shlex.split(WORKDIRS['kan_classifier']['command'])
  older = {'optimizer.warmup': 'schedule.warmup', 'eval.tokens': 'eval.units'}
  for old, new in older.items():
    words = [word.replace(old, new) for word in words]
  spec = next(x for x in words if x.startswith('--config=')).removeprefix('--config=')
  flags = [x for x in words if x.startswith('--config.')]
  tree = json.loads((FIXTURES / 'kan_classifier/config.json').read_text())
  today = parse(load_config(str(ROOT / spec.partition(':')[0]) + ':digits,bspline', flags))
  assert filled(lifted(tree)) == today
  assert tree['eval']['prompt'] == 'def ' and today.eval.prompt == ''


@pytest.mark.conformance
def test_recorded_sizes_are_those_that_the_code_computes():
  """All but those that the compiler counts, which differ from one to the next."""
  alike = {}  # what sizes do not depend on is the same in these
  for run in read(PATH):
    model, optimizer = run.parsed.model, run.parsed.optimizer
    kind = model, run.parsed.length, dataclasses.replace(optimizer, learning_rate=1.0)
    alike.setdefault(kind, []).append(run)
  assert len(alike) > 150
  fields = {'parameters', 'parameter_bytes', 'buffer_bytes', 'optimizer_bytes'}
  fields |= {'training_flops'}
  for runs in alike.values():
    found = size_of(runs[0].parsed)
    for run in runs:
      recorded = {name: x for name, x in run.size.items() if name in fields}
      assert recorded == {name: found[name] for name in fields}


@pytest.mark.conformance
@pytest.mark.usefixtures('four_devices')
def test_an_older_workdir_continues_bit_for_bit_with_more_fields(tmp_path, monkeypatch):
  shutil.copytree(FIXTURES / 'kan_classifier', tmp_path / 'kan_classifier')
  monkeypatch.chdir(tmp_path)
  # All but the mesh, whose fields are the axes of the devices.
  with one_more_field([cls for cls in CLASSES if cls is not MeshConfig]):
    config = load_past('kan_classifier', '--workdir').parsed
    assert config.data.synthetic == config.model.linear.synthetic == 7.0
    changed = dataclasses.replace(config.optimizer, synthetic=8.0)
    changed = dataclasses.replace(config, optimizer=changed)
    words = 'optimizer.synthetic=8.0: .* was started with 7.0'
    with pytest.raises(UserError, match=words):
      train(changed, pathlib.Path('kan_classifier'))
    train(config, pathlib.Path('kan_classifier'))
  found = [x for x in computed('kan_classifier') if x['step'] > 6 and 'train/loss' in x]
  losses = {str(x['step']): x['train/loss'] for x in found}
  expected = WORKDIRS['kan_classifier']['in_tests']['losses']
  assert_recorded('kan_classifier', losses, expected)
