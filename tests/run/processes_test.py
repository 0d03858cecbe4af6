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

from elas_jax.common.errors import UserError
from elas_jax.config import schema
from elas_jax.run.metrics import read_metrics
from elas_jax.run.sharding import join_processes, make_mesh
from elas_jax.train import train

ROOT = pathlib.Path(__file__).parents[2]
MEASURED = 'activations/zero_fraction', 'spectrum/stable_rank/layers/attention/key/0'


def flags_of(config):
  """The overrides that make this config of configs/default.py."""
  return [f'--config.{path}={value}' for path, value, _ in schema.leaves(config)]


def start(number, address, workdir, config):
  """Process `number` of two, with one device."""
  return subprocess.Popen(
    [
      *[sys.executable, '-m', 'elas_jax.train', *flags_of(config)],
      *[f'--processes={address},{number},2', f'--workdir={workdir}'],
    ],
    # Where the config's places lead from.
    env=os.environ
    | {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '1', 'PYTHONPATH': str(ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


@pytest.mark.conformance
def test_two_processes_equal_one_and_go_on_as_one(make_config, corpus, tmp_path):
  tiny = {'model.layers': 1, 'eval.every': 3, 'eval.units': 64, 'checkpoint.every': 3}
  tiny |= {'eval.measures': 'activations,spectrum'}
  config = make_config(**tiny | {'train.steps': 5, 'schedule': 'constant'})
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
  assert {*MEASURED} <= {name for line in two for name in line}
  for ours, theirs in zip(two, one):
    compared = {'train/loss', 'train/grad_norm', 'eval/loss', *MEASURED}
    for name in ours.keys() & compared:
      np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, err_msg=name)


def test_tensor_axis_stays_within_a_process(make_config):
  config = make_config(**{'mesh.data': 1, 'mesh.tensor': 2})
  devices = [types.SimpleNamespace(process_index=number) for number in (0, 1)]
  with pytest.raises(UserError, match='mesh.tensor=2: must divide the 1 devices'):
    make_mesh(config, devices)


@pytest.fixture
def never_joined(monkeypatch):
  def joined(*arguments):
    raise AssertionError(f'joined with {arguments}')

  monkeypatch.setattr('jax.distributed.initialize', joined)


FORM = "must be 'auto' or HOST:PORT,INDEX,COUNT"


@pytest.mark.parametrize(
  'spec, message',
  [
    ('', FORM),
    ('2', FORM),
    ('Auto', FORM),
    ('host,0,2', FORM),
    ('host:1,0', FORM),
    ('host:1,a,2', FORM),
    ('host:x,0,1', FORM),
    (':1234,0,1', FORM),
    ('http://host:80,0,1', FORM),
    ('host:1234,²,3', FORM),  # str.isdigit() takes it for a digit
    ('host:1234,1,³', FORM),
    ('host:12³4,0,1', FORM),
    ('host:1234,-1,3', FORM),
    ('host:1234,0,' + '9' * 30, FORM),
    ('host:99999,0,1', 'PORT=99999: must be between 1 and 65535'),
    ('host:0,0,1', 'PORT=0: must be between'),
    ('host:1234,3,3', 'INDEX=3: must be below COUNT=3'),
    ('host:1234,0,0', 'COUNT=0: must be between 1 and 2147483647'),
    ('host:1234,0,2147483648', 'COUNT=2147483648: must be between'),
    ('localhost..:1234,1,2', 'localhost..:1234: '),
    ('a' * 64 + ':1234,1,2', 'a:1234: '),
  ],
)
def test_processes_flag_is_checked(spec, message, never_joined):
  with pytest.raises(UserError) as caught:
    join_processes(spec)
  assert str(caught.value).startswith(f'--processes={spec!r}: ')
  assert message in str(caught.value)


def test_auto_outside_a_cluster():
  # In a process of its own: one that has used JAX cannot join any more.
  code = (
    'import os\n'
    'from elas_jax.common.errors import UserError\n'
    'from elas_jax.config import cli\n'
    'from elas_jax.run import sharding\n'
    "join = lambda: sharding.join_processes('auto')\n"
    'try:\n'
    '  join()\n'
    'except UserError as error:\n'
    '  print(error)\n'
    "os.environ['OMPI_MCA_orte_hnp_uri'] = 'x'\n"
    'cli.run_command(join)\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=ROOT,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  said = "--processes='auto': no cluster says who is who"
  assert done.stdout.startswith(said)
  assert done.stderr.startswith(f'error: {said}')
  assert done.stderr.count('\n') == 1


def test_port_that_is_taken(never_joined):
  with socket.create_server(('', 0)) as taken:
    address = f'localhost:{taken.getsockname()[1]}'
    with pytest.raises(UserError, match=f'^--processes=.*: {address}: .*in use'):
      join_processes(f'{address},0,2')


def test_nobody_listens(never_joined, monkeypatch):
  monkeypatch.setattr('elas_jax.run.sharding.WAIT_SECONDS', 0.3)
  with socket.create_server(('localhost', 0)) as free:
    address = f'localhost:{free.getsockname()[1]}'
  with pytest.raises(UserError, match=f'^--processes=.*: {address}: Connection refused'):
    join_processes(f'{address},1,2')


def test_empty_flag_is_no_single_process(tmp_path):
  from elas_jax.train import main

  with pytest.raises(UserError, match="^--processes='': must be 'auto'"):
    main(['--processes=', '--dry_run'])
