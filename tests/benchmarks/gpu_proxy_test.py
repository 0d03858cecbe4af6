"""The proxy run on a GPU: its text, its configs, its time, its processes, what it shows."""

import argparse
import json
import os
import sys
import time

import pytest

from benchmarks import gpu_proxy
from benchmarks.gpu_proxy import CONTROL, ELAS, FULL, MODELS
from elas_jax.config.cli import load_config
from elas_jax.config.parsing import parse
from elas_jax.systems.feed_forwards.glu import GLU
from elas_jax.systems.feed_forwards.mlp import MLP
from elas_jax.systems.optimizers.adamw import Adamw
from pallas_kernels.bench.environment import ROOT


@pytest.fixture
def packages(tmp_path):
  """Python of two packages, one of them by a link, beside what is not to be read."""
  root, other = tmp_path / 'site', tmp_path / 'other/linked'
  for folder in (root / 'a/b', other):
    folder.mkdir(parents=True)
  texts = {'a/x.py': 'x = 1\n', 'a/b/y.py': 'y = "ü"\n', 'a/b/same.py': 'x = 1\n'}
  texts |= {'a/empty.py': '', 'a/data.txt': 'no', 'a/module.pyc': 'no'}
  for name, text in texts.items():
    (root / name).write_text(text)
  (root / 'a/latin.py').write_bytes(b'# \xfc\n')
  (other / 'z.py').write_text('z = 3\n')
  (root / 'linked').symlink_to(other)
  (other / 'loop').symlink_to(other)
  return root


def gathered(root, tmp_path, megabytes=1.0):
  found = gpu_proxy.gather(tmp_path / 'out.jsonl', megabytes, str(root))
  lines = (tmp_path / 'out.jsonl').read_text().splitlines()
  return found, [json.loads(line)['text'] for line in lines]


def test_each_text_is_gathered_once(packages, tmp_path):
  found, texts = gathered(packages, tmp_path)
  assert sorted(texts) == ['x = 1\n', 'y = "ü"\n', 'z = 3\n']
  assert found == {'files': 3, 'bytes': 21, 'largest_packages': ['a', 'linked']}


def test_of_more_text_a_part_is_taken_always_the_same(packages, tmp_path):
  _, every = gathered(packages, tmp_path)
  found, texts = gathered(packages, tmp_path, 15e-6)
  assert texts == every[: len(texts)] and 0 < found['bytes'] <= 15
  assert len(texts) == found['files'] < 3


def args_of(**given):
  args = {'steps': 0, 'rows': 64, 'length': 256, 'megabytes': 100.0, 'seed': 3}
  return argparse.Namespace(**args | {'dry_run': False, 'log': None} | given)


@pytest.mark.parametrize('steps', [gpu_proxy.LEAST_STEPS, 2000])
@pytest.mark.parametrize('dry_run', [True, False])
def test_all_models_get_the_same_data_and_steps(steps, dry_run, tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  (tmp_path / 'python.jsonl').write_text('')
  configs = {}
  for name in MODELS:
    spec, *overrides = gpu_proxy.flags(name, args_of(dry_run=dry_run), steps, tmp_path)
    configs[name] = parse(load_config(spec.removeprefix('--config='), overrides))
  common = lambda c: (c.data, c.train, c.eval, c.seed, c.mesh)
  assert len({common(c) for c in configs.values()}) == 1
  elas, control, full = (configs[name] for name in (ELAS, CONTROL, FULL))
  assert elas.optimizer == control.optimizer and isinstance(full.optimizer, Adamw)
  assert elas.seed == 3 and elas.train.steps == steps
  assert elas.model.feed_forward.implementation == ('xla' if dry_run else 'mosaic')
  assert elas.model.feed_forward.dense_steps == steps // 10
  assert (control.model.feed_forward, full.model.feed_forward) == (MLP(), GLU())
  if not dry_run:
    assert {c.model.width for c in configs.values()} == {512}
    assert {c.model.layers for c in configs.values()} == {8}


def rows(*milliseconds):
  return {name: {'ms': {'median': ms}} for name, ms in zip(MODELS, milliseconds)}


def test_the_time_is_shared():
  # By hand: 0.8 x (260 - 60) s of 10 + 20 + 50 ms is 2000 steps.
  assert gpu_proxy.steps_for(260, rows(10, 20, 50)) == 2000
  assert gpu_proxy.steps_for(260, rows(10, 20, 51)) == 1960  # a multiple of 20
  assert gpu_proxy.steps_for(9000, rows(1, 1, 1)) == gpu_proxy.MOST_STEPS
  assert gpu_proxy.steps_for(61, rows(10, 20, 50)) == 0
  assert gpu_proxy.steps_for(260, rows(10, 20, 50) | {ELAS: {'failed': 'hung'}}) == 0


@pytest.fixture
def runs(tmp_path, monkeypatch):
  """Takes the place of elas_jax.train: each process does what its model is told to."""

  def use(**scripts):
    program = tmp_path / 'program'
    cases = '\n'.join(f'  *{MODELS[k]}\\ *) {v} ;;' for k, v in scripts.items())
    program.write_text(f'#!/bin/sh\ncase "$* " in\n{cases}\nesac\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, 'executable', str(program))

  return use


METRICS = [
  {'run': {}},
  {'step': 0, 'note': '2:4 products: dense, in XLA'},
  {'step': 1, 'train/bits_per_byte': 8.0},
  {'step': 20, 'train/bits_per_byte': 3.0, 'eval/bits_per_byte': 4.0},
]


def writes_metrics(folder):
  """A shell command that leaves the curves of a run in the workdir, its last argument."""
  source = folder / 'metrics.jsonl'
  source.write_text(''.join(json.dumps(line) + '\n' for line in METRICS))
  return f'for x; do :; done; d=${{x#--workdir=}}; mkdir $d; cp {source} $d'


def trained(tmp_path, seconds, monkeypatch):
  monkeypatch.setattr(gpu_proxy, 'POLL', 0.05)
  record, saved = {'models': {}, 'steps': 40}, []
  folder = tmp_path / 'runs'
  folder.mkdir()
  save = lambda: saved.append(json.dumps(record))
  end = time.monotonic() + seconds
  gpu_proxy.train_all(record, args_of(), folder, end, save)
  return record['models'], saved


def test_curves_and_failures_are_kept(runs, tmp_path, monkeypatch):
  fine = writes_metrics(tmp_path)
  runs(**{CONTROL: fine, ELAS: 'echo error: no kernel >&2; exit 2', FULL: fine})
  models, saved = trained(tmp_path, 60, monkeypatch)
  assert [models[name]['status'] for name in MODELS] == [
    'finished',
    'failed: error: no kernel',
    'finished',
  ]
  assert models[FULL]['curves'] == {
    'train': [[1, 8.0], [20, 3.0]],
    'eval': [[20, 4.0]],
    'notes': ['2:4 products: dense, in XLA'],
  }
  assert models[ELAS]['curves']['eval'] == []
  assert len(saved) > 1  # partial results on the way
  assert not any(str(tmp_path) in flag for flag in models[FULL]['flags'])


def test_runs_are_stopped_in_time(runs, tmp_path, monkeypatch):
  monkeypatch.setattr(gpu_proxy, 'GRACE', 0.4)
  sleeps = f'{writes_metrics(tmp_path)}; echo $$ > $d.pid; trap "" TERM; sleep 60'
  runs(**{CONTROL: sleeps, ELAS: sleeps, FULL: 'exit 0'})
  start = time.monotonic()
  models, _ = trained(tmp_path, 1.5, monkeypatch)
  assert time.monotonic() - start < 20
  assert models[ELAS]['status'] == 'stopped before its end'
  assert models[FULL]['status'] == 'finished'
  assert models[ELAS]['curves']['eval'] == [[20, 4.0]]
  for path in (tmp_path / 'runs').glob('*.pid'):
    with pytest.raises(ProcessLookupError):
      os.kill(int(path.read_text()), 0)


def record_of():
  curves = lambda *points: {'train': [[1, 8.0]], 'eval': [*points], 'notes': []}
  own = {'status': 'finished', 'method': 'm', 'parameters': 1234}
  models = {
    CONTROL: own | {'curves': curves([10, 3.0], [20, 2.5])},
    ELAS: own | {'curves': curves([10, 3.1], [20, 2.6])},
    FULL: own | {'status': 'failed: no room', 'curves': curves([10, 3.5])},
  }
  models[ELAS]['curves']['notes'] = ['2:4 products: by the kernels']
  about = dict.fromkeys(('device', 'driver', 'commit', 'source', 'rows', 'length'), 1)
  data = {'bytes': 2e6, 'files': 5, 'largest_packages': ['torch', 'jax']}
  about |= {'versions': {'jax': '1'}, 'seed': 0, 'steps': 20, 'dry_run': False}
  return about | {'data': data, 'models': models}


def test_the_table_is_called_a_proxy():
  text = gpu_proxy.render(record_of())
  assert text.startswith('# Proxy') and "PROXY, not the paper's scale" in text
  assert '| ELAS | m | finished | 20 | 2.6000 | +0.1000 | 1,234 |' in text
  # Not at the same step as the control's last, so not compared.
  assert f'| {FULL} | m | failed: no room | 10 | 3.5000 | - | 1,234 |' in text
  assert '| 10 | 3.0000 | 3.1000 | 3.5000 |' in text
  assert '| 20 | 2.5000 | 2.6000 | - |' in text
  assert '- ELAS: 2:4 products: by the kernels' in text and 'Dry run' not in text
  assert 'Dry run' in gpu_proxy.render(record_of() | {'dry_run': True})


def test_the_plot_is_called_a_proxy(tmp_path, monkeypatch):
  from matplotlib.figure import Figure

  titles, save = [], Figure.savefig

  def savefig(figure, *args, **options):
    titles.append(figure.get_suptitle())
    labels = [line.get_label() for ax in figure.axes for line in ax.lines]
    assert labels == list(MODELS) * 2
    save(figure, *args, **options)

  monkeypatch.setattr(Figure, 'savefig', savefig)
  gpu_proxy.plot(record_of(), tmp_path / 'proxy.png')
  assert 'PROXY, one seed' in titles[0]
  assert [path.name for path in tmp_path.iterdir()] == ['proxy.png']


def test_nothing_is_trained_without_times(tmp_path, monkeypatch, capsys):
  data = {'files': 1, 'bytes': 1, 'largest_packages': []}
  monkeypatch.setattr(gpu_proxy, 'prepare', lambda *_: data)
  hung = rows(1, 1, 1) | {ELAS: {'failed': 'no answer within 40 s'}}
  monkeypatch.setattr(gpu_proxy, 'step_times', lambda *_: hung)
  found = {'device': 'NVIDIA H200', 'versions': {}}
  args = args_of(out=str(tmp_path))
  assert gpu_proxy.run(args, found, time.monotonic() + 100) == 1
  assert 'nothing was trained: ELAS: no answer within 40 s' in capsys.readouterr().out
  written = json.loads((tmp_path / 'proxy_60m_NVIDIA_H200.json').read_text())
  assert written['failed'] == ['ELAS: no answer within 40 s']


def test_without_a_gpu_it_says_so(capsys, tmp_path):
  assert gpu_proxy.main([f'--out={tmp_path}']) == 2
  said = capsys.readouterr().out
  assert said.startswith('not available: implementation=') and said.count('\n') == 1


@pytest.mark.parametrize(
  ('flag', 'accepted'),
  [('--steps=5', '0, or at least 40'), ('--rows=0', 'above 0'), ('--seconds=-1', 'above')],
)
def test_bad_arguments_are_named(flag, accepted, capsys):
  with pytest.raises(SystemExit):
    gpu_proxy.main([flag])
  said = capsys.readouterr().err
  assert flag.partition('=')[0] in said and accepted in said
