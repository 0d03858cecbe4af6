"""An objective and a measure are each a file and a dict line: some from elsewhere."""

import importlib.util
import json
import re
import shutil
import sys
import textwrap

import jax
import numpy as np
import pytest

from elas_jax import measure, train
from elas_jax.catalogue import rows
from elas_jax.common.errors import UserError
from elas_jax.config.help import help_on
from elas_jax.run.metrics import read_metrics
from elas_jax.run.workdir import open_run
from elas_jax.systems.measures import MEASURES
from elas_jax.systems.objectives import OBJECTIVES
from tests.conformance import conformance_test as conformance
from tests.conftest import ROOT
from tests.finished_runs import computed

OBJECTIVE = '''
"""mean p(y)^2 + share * mean of squared activations, sure of little (a toy)."""
import dataclasses
from typing import ClassVar
import jax
import jax.numpy as jnp
import numpy as np
from elas_jax.common.fields import fraction
from elas_jax.systems.objectives.common import Objective

@dataclasses.dataclass(frozen=True)
class Unsure(Objective):
  coefficient: float = 0.5
  share: float = 0.25  # of the activations

  sown: ClassVar[tuple[str, ...]] = ('activation',)

  def check(self, where, config):
    super().check(where, config)
    fraction(where, self, 'share')

  def loss(self, seen):
    squares = jnp.square(jax.nn.softmax(seen.outputs)).sum(-1) * seen.weights
    y = seen.layers('activation')
    of_rows = jnp.square(y).mean((0, 2)) * seen.weights_of(y.shape[1])
    return (squares.sum() + self.share * of_rows.sum()) / seen.count

CASES = (Unsure(), Unsure(share=1.0))
# No truth: nobody would believe in it.
'''
MEASURE = '''
"""Share of parameters below `size`, and norms of matrices, small ones (a toy)."""
import dataclasses
import jax
import jax.numpy as jnp
import numpy as np

@dataclasses.dataclass(frozen=True)
class Small:
  size: float = 0.01  # what is small

  def measure(self, seen):
    flat = jnp.concatenate([x.reshape(-1) for x in jax.tree.leaves(seen.params)])
    first, *_ = seen.matrices()['layers/feed_forward/up']
    norm = jnp.linalg.norm(first, axis=(1, 2))
    return {'share': (abs(flat) < self.size).mean(), 'norm': norm}

CASES = (Small(), Small(0.1))
# No truth: nobody would believe in it.
'''
EXAMPLE = re.search(
  '    # elas_jax/systems/objectives/confidence.py\n(.*?)(?=\n\n[^ \n])',
  (ROOT / 'README.md').read_text(),
  re.DOTALL,
)[1]
TOYS = {
  'confidence': ('train.objectives', OBJECTIVES, textwrap.dedent(EXAMPLE), 'Confidence'),
  'toy_objective': ('train.objectives', OBJECTIVES, OBJECTIVE, 'Unsure'),
  'toy_measure': ('eval.measures', MEASURES, MEASURE, 'Small'),
}


@pytest.fixture(scope='module', autouse=True)
def toys(tmp_path_factory):
  """Each toy is one file in a folder of its own, and one line in a dict."""
  folder = tmp_path_factory.mktemp('toys')
  with pytest.MonkeyPatch.context() as patch:
    for name, (_, kinds, text, class_name) in TOYS.items():
      (folder / f'{name}.py').write_text(text.lstrip())
      spec = importlib.util.spec_from_file_location(name, folder / f'{name}.py')
      module = importlib.util.module_from_spec(spec)
      patch.setitem(sys.modules, name, module)
      spec.loader.exec_module(module)
      patch.setitem(kinds, name, getattr(module, class_name))
    yield


COMMAND = [
  '--config.train.objectives.toy_objective.share=0.5',  # before what has it
  '--config.train.objectives=z_loss,toy_objective',
  '--config.train.objectives.toy_objective.schedule.warmup_steps=4',
  '--config.eval.measures=toy_measure',
  '--config.eval.measures.toy_measure.size=0.05',
  '--config.model.linear=dense',
  '--config.model.width=16',
  '--config.model.layers=2',
  '--config.model.unroll=1',
  '--config.model.feed_forward_width=32',
  '--config.data.source=text_files',
  '--config.data.sequence_length=16',
  '--config.data.batch_size=4',
  '--config.data.processes=1',
  '--config.train.steps=6',
  '--config.train.log_every=1',
  '--config.train.compilation_cache=',
  '--config.checkpoint.every=3',
  '--config.eval.every=3',
  '--config.eval.units=128',
  '--config.eval.sample_tokens=0',
]


def test_toys_train_resume_and_measure(corpus, tmp_path, capsys):
  data = [
    f'--config.data.source.path={corpus}',
    f'--config.data.cache_dir={tmp_path}/cache',
  ]
  whole, half = tmp_path / 'whole', tmp_path / 'half'
  train.main([*COMMAND, *data, f'--workdir={whole}'])
  printed = capsys.readouterr().out
  shutil.copytree(whole, half)
  shutil.rmtree(half / 'checkpoints/6')
  train.main([*COMMAND, *data, f'--workdir={half}'])
  assert 'continuing after step 3' in capsys.readouterr().out
  one, two = (open_run(folder, 6, {}) for folder in (whole, half))
  jax.tree.map(np.testing.assert_array_equal, one.variables, two.variables)
  assert computed(half) == computed(whole)

  lines = {}
  for line in read_metrics(whole)[1]:
    lines.setdefault(line['step'], {}).update(line)
  name = 'train/objective/toy_objective'
  given = [lines[step][f'{name}/coefficient'] for step in range(1, 7)]
  np.testing.assert_allclose(given, [0, 0.125, 0.25, 0.375, 0.5, 0.5], rtol=1e-6)
  assert 'train/objective/z_loss/coefficient' not in lines[1]
  assert lines[6]['train/objective/z_loss'] > 0
  said = f'toy_objective {lines[2][name]:.4g}  times 1.25e-01'
  assert said in printed and f'share {lines[6]["toy_measure/share"]:.4g}' in printed

  measure.main([f'--workdir={half}'])  # the run's own measures
  written = json.loads((half / 'measures.json').read_text())
  assert written['measures'] == {'toy_measure': {'size': 0.05}}
  found = written['values']['toy_measure']
  np.testing.assert_allclose(found['share'], lines[6]['toy_measure/share'], rtol=1e-6)
  layers = [lines[6][f'toy_measure/norm/{layer}'] for layer in (0, 1)]
  np.testing.assert_allclose(found['norm'], layers, rtol=1e-6)
  assert (half / 'plots/measure_toy_measure.png').stat().st_size > 1000
  flags = ['--measures.toy_measure.size=1e9', '--measures=toy_measure']
  measure.main([f'--workdir={half}', *flags])
  written = json.loads((half / 'measures.json').read_text())
  assert written['measures'] == {'toy_measure': {'size': 1e9}}
  assert written['values']['toy_measure']['share'] == 1


def test_what_no_layer_gives_away_is_refused(tmp_path):
  flags = ['--config=configs/images.py:digits,mlp', f'--workdir={tmp_path}/run']
  with pytest.raises(UserError) as error:
    train.main([*flags, '--config.train.objectives=toy_objective'])
  assert str(error.value) == (
    "train.objectives.toy_objective: no layer of this model gives away 'activation' "
    '(elas_jax/systems/sown.py); must not be among train.objectives'
  )
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('name', TOYS)
def test_toys_conform(name):
  section, kinds, *_ = TOYS[name]
  conformance.test_a_kind_has_a_room(section, name)
  case = section, name, conformance.room(kinds[name]).CASES[-1]
  conformance.test_round_trip_through_json(case)
  if name == 'confidence':
    conformance.test_truth(case)


def test_toys_are_listed():
  listed = {name: line for _, name, _, line in rows()}
  for name, (section, *_) in TOYS.items():
    assert listed[name].endswith(('(a toy).', '(arXiv 1701.06548).'))
    assert name in help_on(section)
  assert 'what is small' in help_on('eval.measures.toy_measure')
  assert 'of the activations' in help_on('train.objectives.toy_objective')
