"""Tuning: what is tried, which config is taken, and when the file is written."""

import dataclasses
import json
import types

import jax
import pytest

from pallas_kernels import tune
from pallas_kernels.bench import contact, selection
from pallas_kernels.bench.candidates import best, candidates, group_of
from pallas_kernels.two_four import dispatch, mosaic
from pallas_kernels.two_four.mosaic_gpu.feed_forward import Config

TOKENS = 16384


def times(median, least=None, most=None):
  return {'us': {'median': median, 'min': least or median, 'max': most or median}}


def sweep_record(**changes):
  rows = [{'config': {'stages': 1}} | times(100.0, 97.0, 104.0)]
  rows += [
    {'config': {'stages': 2}} | times(90.0),
    {'config': {'stages': 3}, 'failed': 'x'},
  ]
  passed = {name: {'passed': True} for name in contact.contact(0)}
  record = {'device': 'Test Device', 'versions': {}, 'commit': 'c', 'source': 's'}
  return record | {'checks': passed, 'sweeps': {'matmul M=1 K=2 N=3': rows}} | changes


def test_writes_what_dispatch_reads(tmp_path, monkeypatch):
  assert tune.finish(sweep_record(), tmp_path) == 'passed: 1 keys in Test_Device.json'
  assert [path.name for path in tmp_path.iterdir()] == ['Test_Device.json']
  monkeypatch.setattr(dispatch, 'TUNED', tmp_path)
  monkeypatch.setattr(
    dispatch, '_device', lambda: types.SimpleNamespace(device_kind='Test Device')
  )
  default = tune_default(1)
  shape = {'M': 1, 'K': 2, 'N': 3}
  assert dispatch.tuned_config('matmul', shape, default) == tune_default(2)
  assert dispatch.tuned_config('matmul', shape | {'N': 4}, default) is default


@pytest.mark.conformance
def test_tiles_that_are_here_build_the_kernels_of_their_shapes(monkeypatch):
  """By each device's file, as it lies there: else only that device would tell."""
  taken = {}

  def tuned_config(op, shape, default):
    taken[dispatch.key(op, shape)] = config = dispatch.tuned_config(op, shape, default)
    return config

  monkeypatch.setattr(mosaic, 'tuned_config', tuned_config)
  assert (files := sorted(dispatch.TUNED.glob('*.json')))
  for path in files:
    stored = json.loads(path.read_text())
    device = types.SimpleNamespace(
      **{**vars(dispatch.H200), 'device_kind': stored['device']}
    )
    assert path == dispatch.tuned_file(device)
    for key, config in stored['configs'].items():
      for case in group_of(key, TOKENS):
        with dispatch.building_for(device):
          jax.eval_shape(case.function('mosaic'), *case.abstract_inputs())
        assert dataclasses.asdict(taken[key]) == config


def tune_default(stages):
  from pallas_kernels.two_four.mosaic_gpu.feed_forward import Config

  return Config(stages=stages)


@pytest.mark.parametrize('kind', ['failed', 'missing', 'default'])
def test_writes_nothing_if_a_check_failed(kind, tmp_path):
  record = sweep_record()
  if kind == 'failed':
    record['checks'][next(iter(contact.contact(0)))] = {'passed': False}
  elif kind == 'missing':
    del record['checks'][next(iter(contact.contact(0)))]
  else:
    record['sweeps']['matmul M=1 K=2 N=3'][0] = {'config': {}, 'failed': 'wrong result'}
  (tmp_path / 'Test_Device.json').write_text('{}')  # of the keys before
  assert tune.finish(record, tmp_path).startswith('failed: no tuned file: ')
  assert not list(tmp_path.iterdir())


def test_takes_a_config_only_beyond_the_spread():
  default = {'config': {'stages': 1}} | times(100.0, 97.0, 104.0)
  within, beyond = ({'config': {'stages': 2}} | times(us) for us in (98.0, 96.0))
  assert best([default, within]) is None
  assert best([default, within, beyond]) == {'stages': 2}
  assert best([{'failed': 'x'}, {'failed': 'y'}]) is None


def test_keeps_what_other_runs_found_for_the_same_kernels(tmp_path, monkeypatch):
  monkeypatch.setattr(dispatch, 'TUNED', tmp_path)
  old = {'device': 'Test Device', 'source': 's', 'configs': {'other': {}}, 'times': {}}
  path = tmp_path / 'Test_Device.json'
  for source, kept in (('s', {'other'}), ('older', set())):
    path.write_text(json.dumps(old | {'source': source}))
    tune.finish(sweep_record(), tmp_path)
    assert set(json.loads(path.read_text())['configs']) == kept | {'matmul M=1 K=2 N=3'}


def test_tuning_uses_the_keys_of_the_kernels(monkeypatch):
  monkeypatch.setattr(selection, 'OPS', ('gated_backward', 'feed_forward'))
  keys = selection.keys(TOKENS, '(gated_backward|feed_forward) .*F=3072')
  assert keys == [
    'gated_backward T=16384 K=256 F=3072',
    'feed_forward T=16384 R=256 F=3072 N=256',
  ]
  assert [len(group_of(key, TOKENS)) for key in keys] == [1, 1]
  assert candidates(keys[1], TOKENS)[0] == dataclasses.asdict(Config())  # the default
