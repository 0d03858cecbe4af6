"""A system is a file and a dict line: one run of toys of every room goes all the way."""

import json
import shutil

import jax
import numpy as np
import pytest

from elas_jax import convert, evaluate, generate, measure, train
from elas_jax.catalogue import rows
from elas_jax.common.errors import UserError
from elas_jax.config.help import help_on
from elas_jax.run.metrics import read_metrics
from elas_jax.run.workdir import open_run
from elas_jax.systems.linears import LINEARS
from tests.conformance import conformance_test as conformance
from tests.finished_runs import computed
from tests.toys import TOYS, install


@pytest.fixture(scope='module', autouse=True)
def toys(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    install(tmp_path_factory.mktemp('toys'), patch)
    yield


COMMAND = [
  '--config.model.linear.share=0.2',  # before the kind that has it
  '--config.model.linear=toy_linear',
  '--config.model.feed_forward.activation=soft_sign',
  '--config.model.attention=toy_mixer',
  '--config.model.norm=toy_norm',
  '--config.optimizer=toy_optimizer',
  '--config.optimizer.learning_rate=0.003',
  '--config.train.objectives.toy_objective.share=0.5',
  '--config.train.objectives=z_loss,toy_objective',
  '--config.train.objectives.toy_objective.schedule.warmup_steps=4',
  '--config.eval.measures=toy_measure',
  '--config.eval.measures.toy_measure.size=0.05',
  '--config.model.width=16',
  '--config.model.layers=2',
  '--config.model.unroll=1',
  '--config.model.feed_forward_width=32',
  '--config.data.source=text_files',
  '--config.data.document_mask=False',  # toy_mixer knows of none
  '--config.data.sequence_length=16',
  '--config.data.batch_size=4',
  '--config.data.processes=1',
  '--config.train.steps=8',
  '--config.train.log_every=1',
  '--config.train.compilation_cache=',
  '--config.checkpoint.every=4',
  '--config.eval.every=4',
  '--config.eval.units=128',
  '--config.eval.batch_size=4',
  '--config.eval.sample_tokens=0',
]


def merged(workdir):
  """{step: all that was logged at it}."""
  lines = {}
  for line in read_metrics(workdir)[1]:
    lines.setdefault(line['step'], {}).update(line)
  return lines


def test_toys_train_resume_measure_and_convert(corpus, tmp_path, capsys):
  data = [
    f'--config.data.source.path={corpus}',
    f'--config.data.cache_dir={tmp_path}/cache',
  ]
  command = [*COMMAND, *data]
  whole, half = tmp_path / 'whole', tmp_path / 'half'
  train.main([*command, f'--workdir={whole}'])
  printed = capsys.readouterr().out
  trained(whole, printed)

  shutil.copytree(whole, half)
  shutil.rmtree(half / 'checkpoints/8')
  train.main([*command, f'--workdir={half}'])
  assert 'continuing after step 4' in capsys.readouterr().out
  one, two = (open_run(folder, 8, {}) for folder in (whole, half))
  jax.tree.map(np.testing.assert_array_equal, one.variables, two.variables)
  assert computed(half) == computed(whole)

  evaluate.main([f'--workdir={half}'])
  generate.main([f'--workdir={half}', '--prompt=alpha', '--tokens=4'])
  assert 'alpha' in capsys.readouterr().out
  measured(half)
  converted(half, tmp_path / 'halved', capsys)
  rate = '--config.optimizer.learning_rate=0.00075'
  train.main([*command, rate, f'--workdir={tmp_path}/halved'])
  losses = [line['train/loss'] for line in merged(tmp_path / 'halved').values()]
  assert len(losses) == 8 and np.isfinite(losses).all()


def trained(workdir, printed):
  tree = json.loads((workdir / 'config.json').read_text())
  assert tree['model']['attention'] == {'kind': 'toy_mixer'}
  assert open_run(workdir, 8, {}).config.model.linear == LINEARS['toy_linear'](share=0.2)
  lines = merged(workdir)
  assert lines[8]['train/loss'] < lines[1]['train/loss']
  name = 'train/objective/toy_objective'
  given = [lines[step][f'{name}/coefficient'] for step in range(1, 9)]
  warm = [0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.5]
  np.testing.assert_allclose(given, warm, rtol=1e-6)
  assert 'train/objective/z_loss/coefficient' not in lines[1]
  assert lines[8]['train/objective/z_loss'] > 0
  said = f'toy_objective {lines[2][name]:.4g}  times 1.25e-01'
  assert said in printed and f'share {lines[8]["toy_measure/share"]:.4g}' in printed


def measured(workdir):
  """By the run's own measures, and by others."""
  line = merged(workdir)[8]
  measure.main([f'--workdir={workdir}'])
  written = json.loads((workdir / 'measures.json').read_text())
  assert written['measures'] == {'toy_measure': {'size': 0.05}}
  found = written['values']['toy_measure']
  np.testing.assert_allclose(found['share'], line['toy_measure/share'], rtol=1e-6)
  layers = [line[f'toy_measure/norm/{layer}'] for layer in (0, 1)]
  np.testing.assert_allclose(found['norm'], layers, rtol=1e-6)
  assert (workdir / 'plots/measure_toy_measure.png').stat().st_size > 1000
  flags = ['--measures.toy_measure.size=1e9', '--measures=toy_measure']
  measure.main([f'--workdir={workdir}', *flags])
  written = json.loads((workdir / 'measures.json').read_text())
  assert written['measures'] == {'toy_measure': {'size': 1e9}}
  assert written['values']['toy_measure']['share'] == pytest.approx(1)


def converted(workdir, output, capsys):
  """By README's converter, and not by one that breaks the run or asks for too little."""
  places = f'--workdir={workdir}', f'--output={output}', '--converter=halve'
  with pytest.raises(UserError, match=r'^converter.share=0.0: must be above 0'):
    convert.main([*places, '--converter.share=0.0'])
  with pytest.raises(UserError, match="^converter='halve': the outputs on .* not finite"):
    convert.main([*places, '--converter.share=3e38'])
  assert not output.exists()
  capsys.readouterr()
  convert.main([*places, '--converter.share=0.25'])
  said, field, compared, *_ = capsys.readouterr().out.splitlines()
  assert said == 'weights times 0.25'
  assert field == 'optimizer.learning_rate: 0.003 -> 0.00075'
  assert compared.startswith('outputs ') and ' changed by at most 0 ' not in compared
  old, new = (open_run(folder, None, {}).variables for folder in (workdir, output))
  quarter = jax.tree.map(lambda x: x * np.float32(0.25), old)
  jax.tree.map(np.testing.assert_array_equal, new, quarter)


def test_what_no_layer_gives_away_is_refused(tmp_path):
  flags = ['--config=configs/images.py:digits,af_kan', f'--workdir={tmp_path}/run']
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
  conformance.test_what_a_base_refuses_is_refused(section, name)
  room = conformance.room(kinds[name])
  for kind in room.CASES:
    case = section, name, kind
    conformance.test_round_trip_through_json(case)
    if hasattr(room, 'truth'):
      conformance.test_truth(case)
    conformance.test_every_parameter_has_a_place(case)
  if section == 'model.attention':
    conformance.test_mixers_are_causal(case)
  if section == 'converter':
    conformance.test_a_conversion(case)


# Whose help says what of its fields; help knows an activation inside a feed-forward too.
HELP = {
  'model.linear.toy_linear': 'of the common number',
  'train.objectives.toy_objective': 'of the activations',
  'eval.measures.toy_measure': 'what is small',
  'converter.halve': 'of every weight',
}


def test_toys_are_listed():
  listed = {name: line for _, name, _, line in rows()}
  for name, (section, *_) in TOYS.items():
    if name.startswith('toy_'):
      assert listed[name].endswith('(a toy).')
    if section != 'model.activation':
      assert f'\n  {name} ' in help_on(section)
  assert listed['soft_sign'].startswith('a x / (1 + |x|)')
  assert listed['confidence'].endswith('(arXiv 1701.06548).')
  assert listed['halve'].startswith('All weights times a share')
  for path, said in HELP.items():
    assert said in help_on(path)
