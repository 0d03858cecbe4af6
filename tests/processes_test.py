"""A run of two processes, as on two machines, against one process."""

import dataclasses
import os
import pathlib
import socket
import subprocess
import sys
import types

import numpy as np
import pytest

from elas_jax.errors import UserError
from elas_jax.metrics import read_metrics
from elas_jax.sharding import join_processes, make_mesh
from elas_jax.train import train

ROOT = pathlib.Path(__file__).parents[1]


def flags_of(fields, prefix='--config'):
  """The overrides that give this config's sections, whose base is configs/default.py."""
  for name, value in fields.items():
    if isinstance(value, dict):
      yield from flags_of(value, f'{prefix}.{name}')
    elif prefix != '--config':
      yield f'{prefix}.{name}={value}'


def start(number, address, workdir, config):
  """Process `number` of two, with one device."""
  return subprocess.Popen(
    [
      *[sys.executable, '-m', 'elas_jax.train', *flags_of(dataclasses.asdict(config))],
      *[f'--processes={address},{number},2', f'--workdir={workdir}'],
    ],
    cwd=ROOT,
    env=os.environ | {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '1'},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


@pytest.mark.slow
def test_two_processes_equal_one_and_go_on_as_one(make_config, corpus, tmp_path):
  tiny = {'model.layers': 1, 'eval.every': 3, 'eval.tokens': 64, 'checkpoint.every': 3}
  config = make_config(**tiny | {'train.steps': 5, 'optimizer.schedule': 'constant'})
  train(config, tmp_path / 'one')

  short = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=3))
  split = dataclasses.replace(short, mesh=dataclasses.replace(config.mesh, data=1, fsdp=2))
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  both = [start(number, address, tmp_path / 'two', split) for number in (0, 1)]
  try:
    printed = [process.communicate(timeout=300) for process in both]
  finally:
    for process in both:
      process.kill()
  assert [process.returncode for process in both] == [0, 0], printed
  assert 'step 3/3' in printed[0][0]
  assert 'step' not in printed[1][0]  # one of them talks
  assert read_metrics(tmp_path / 'two')[0]['processes'] == 2

  train(config, tmp_path / 'two')
  one, two = (read_metrics(tmp_path / name)[1] for name in ('one', 'two'))
  assert [line['step'] for line in two] == [line['step'] for line in one]
  for ours, theirs in zip(two, one):
    for name in ours.keys() & {'train/loss', 'train/grad_norm', 'eval/loss'}:
      np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, err_msg=name)


def test_tensor_axis_stays_within_a_process(make_config):
  config = make_config(**{'mesh.data': 1, 'mesh.tensor': 2})
  devices = [types.SimpleNamespace(process_index=number) for number in (0, 1)]
  with pytest.raises(UserError, match='mesh.tensor=2: must divide the 1 devices'):
    make_mesh(config, devices)


@pytest.mark.parametrize('spec', ['', '2', 'host,0,2', 'host:1,0', 'host:1,a,2'])
def test_processes_flag_is_checked(spec):
  with pytest.raises(UserError, match='--processes=.*HOST:PORT,INDEX,COUNT'):
    join_processes(spec)
