"""A converter is a file and a dict line: that of the README converts, and a run goes on."""

import importlib.util
import re
import sys

import jax
import numpy as np
import pytest

from elas_jax import convert, evaluate
from elas_jax.catalogue import rows
from elas_jax.common.errors import UserError
from elas_jax.config.cli import load_config
from elas_jax.config.help import help_on
from elas_jax.config.parsing import parse
from elas_jax.run.metrics import read_metrics
from elas_jax.run.workdir import open_run
from elas_jax.systems.converters import CONVERTERS
from elas_jax.train import train
from tests.conformance import conformance_test as conformance
from tests.conftest import ROOT

FLAGS = {
  'model.width': 8,
  'data.source.examples': 64,
  'data.batch_size': 8,
  'eval.batch_size': 8,
  'train.steps': 4,
  'train.log_every': 1,
  'train.compilation_cache': '',
}


def example():
  """The file that README shows, as it is pasted."""
  text = (ROOT / 'README.md').read_text()
  block = r'(?m)^    # elas_jax/systems/converters/halve\.py\n((?:    .*\n|\n)+)'
  (found,) = re.findall(block, text)
  return '\n'.join(line.removeprefix('    ') for line in found.splitlines()) + '\n'


@pytest.fixture(scope='module', autouse=True)
def toy(tmp_path_factory):
  path = tmp_path_factory.mktemp('toy') / 'halve.py'
  path.write_text(example())
  spec = importlib.util.spec_from_file_location('halve', path)
  module = importlib.util.module_from_spec(spec)
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(sys.modules, 'halve', module)
    spec.loader.exec_module(module)
    patch.setitem(CONVERTERS, 'halve', module.Halve)
    yield


def config_of(**overrides):
  flags = [f'--config.{name}={value}' for name, value in (FLAGS | overrides).items()]
  return parse(load_config('configs/functions.py:product,mlp', flags))


def test_a_toy_converts_evaluates_and_trains_on(tmp_path, capsys):
  train(config_of(), tmp_path / 'run')
  places = f'--workdir={tmp_path}/run', f'--output={tmp_path}/halved'
  with pytest.raises(UserError, match=r'^converter.share=0.0: must be above 0'):
    convert.main([*places, '--converter=halve', '--converter.share=0.0'])
  with pytest.raises(UserError, match="^converter='halve': the outputs on .* not finite"):
    convert.main([*places, '--converter=halve', '--converter.share=3e38'])
  assert [path.name for path in tmp_path.iterdir()] == ['run']
  capsys.readouterr()
  convert.main([*places, '--converter=halve', '--converter.share=0.25'])
  said, field, compared, *_ = capsys.readouterr().out.splitlines()
  assert said == 'weights times 0.25'
  assert field == 'optimizer.learning_rate: 0.005 -> 0.00125'
  assert compared.startswith('outputs ') and ' changed by at most 0 ' not in compared
  old, new = (open_run(tmp_path / name, None, {}) for name in ('run', 'halved'))
  quarter = jax.tree.map(lambda x: x * np.float32(0.25), old.variables)
  jax.tree.map(np.testing.assert_array_equal, new.variables, quarter)
  evaluate.main([f'--workdir={tmp_path}/halved'])
  assert (tmp_path / 'halved/evaluation.json').is_file()
  train(config_of(**{'optimizer.learning_rate': 0.00125}), tmp_path / 'halved')
  lines = [line for line in read_metrics(tmp_path / 'halved')[1] if 'train/loss' in line]
  assert [line['step'] for line in lines] == [1, 2, 3, 4]
  assert np.isfinite([line['train/loss'] for line in lines]).all()


def test_the_toy_conforms():
  conformance.test_a_kind_has_a_room('converter', 'halve')
  for kind in conformance.room(CONVERTERS['halve']).CASES:
    case = 'converter', 'halve', kind
    conformance.test_round_trip_through_json(case)
  conformance.test_a_conversion(case)


def test_the_toy_is_listed():
  (line,) = (line for section, name, _, line in rows() if name == 'halve')
  assert line.startswith('All weights times a share')
  assert '\n  halve ' in help_on('converter')
  assert 'of every weight' in help_on('converter.halve')
