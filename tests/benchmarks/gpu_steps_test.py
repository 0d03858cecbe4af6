"""Training steps on a GPU: what is compared, what is refused, what the table says."""

import argparse
import copy
import functools
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import gpu_peers, gpu_proxy, gpu_steps, gpu_wheels
from benchmarks.gpu_steps import CONTROL, KERNELS, PEERS, TINY, XLA
from elas_jax.run.sharding import AXES
from pallas_kernels.bench.workers import NO_TIME

FULL = 'full rank, SwiGLU'


@pytest.mark.conformance
def test_elas_by_the_kernels_is_what_is_lowered():
  """Its program has kernels, and that of ELAS in XLA has none; nothing is compiled."""
  kernels = {}
  for name in (XLA, KERNELS):
    method, implementation = PEERS[name]
    config = gpu_peers.config_of('60m', method, implementation, 2, TINY)
    peer = gpu_peers.Peer(config, lower_only=True)
    kernels[name] = peer.about()['kernels_lowered']
  assert [name for name, count in kernels.items() if count] == [KERNELS]
  assert kernels[KERNELS] >= 4  # forward, dh, ds and the weights' gradients


@pytest.mark.aot
def test_kernels_are_counted_in_a_program_compiled_for_a_gpu(monkeypatch):
  from jax.experimental import topologies

  from pallas_kernels import aot

  aot.take_tools()
  options = {'platform': 'cuda', 'target_config': aot.H200, 'topology': '1x1x1'}
  mesh = topologies.make_mesh(topologies.get_topology_desc(**options), (1, 1, 1), AXES)
  monkeypatch.setattr(gpu_peers, 'make_mesh', lambda *_: mesh)
  for implementation, least in (('mosaic', 5), ('xla', 0)):
    config = gpu_peers.config_of('60m', 'elas_adamw', implementation, 2, TINY)
    peer = gpu_peers.Peer(config, lower_only=True)
    peer.compile()
    about = peer.about()
    assert about['kernels'] >= least and bool(about['kernels']) == bool(least)
    assert about['temporary_bytes'] > 0


@pytest.fixture(scope='module')
def measured():
  """Two models that are the same and one that is not, on this CPU."""
  peers = {
    'one': ('elas_adamw', 'xla'),
    'other': ('low_rank_relu2', 'auto'),
    'impossible': ('full', 'mosaic'),
  }
  built = gpu_peers.build('60m', peers | {'left out': ('', '')}, 2, ['left out'], TINY)
  kept = gpu_peers.kept()
  other, kept['same'] = kept.pop('other'), copy.copy(kept['one'])
  create = functools.cache(gpu_peers.create_state)
  with pytest.MonkeyPatch.context() as patch:
    fresh = lambda *given: jax.tree.map(jnp.copy, create(*given))
    patch.setattr(gpu_peers, 'create_state', fresh)
    same = gpu_peers.turns(1, ['one', 'same'])
    kept['one'].state = None
    kept['other'] = other
    del kept['same']
    return built, same, gpu_peers.turns(1, ['one', 'other'])


@pytest.mark.conformance
def test_what_a_step_is_measured_by(measured):
  built, same, _ = measured
  assert built['one']['kernels'] == 0 and built['one']['temporary_bytes'] > 0
  for row in same.values():
    assert math.isfinite(row['loss']) and row['in_turns']
    assert row['tokens_per_second'] == pytest.approx(64 / row['ms']['median'] * 1e3)
    assert row['ms']['min'] <= row['ms']['median'] <= row['ms']['max']
  # By hand: embedding and head, 300 x 64 each; of one layer the norms, four maps of
  # attention, up and down, of rank 16; the last norm.
  parameters = 2 * 300 * 64 + 2 * 64 + 16 * (4 * 128 + 2 * 192) + 64
  assert built['other']['parameters'] == parameters


@pytest.mark.conformance
def test_models_that_are_the_same_have_the_same_gradients(measured):
  _, same, other = measured
  assert same['same']['gradient_difference'] == same['same']['loss_difference'] == 0
  assert 'gradient_difference' not in same['one']
  # Without pruning they are others, by more than is accepted.
  assert other['other']['gradient_difference'] > 2 * gpu_steps.GRADIENT_TOLERANCE


@pytest.mark.conformance
def test_a_config_that_cannot_be_is_the_row_of_its_model(measured):
  built, same, _ = measured
  words = "no such field of model.feed_forward='glu'; 'relu2_two_four' has it"
  assert words in built['impossible']['failed']
  assert set(built) == {'one', 'other', 'impossible'}
  assert 'failed' not in built['one'] and 'failed' not in built['other']


def test_the_largest_difference_counts():
  a = {'up': np.array([3.0, 4.0]), 'down': np.array([1.0, 0.0])}
  b = {'up': np.array([3.0, 4.0]), 'down': np.array([1.0, 0.5])}
  assert gpu_peers.difference(a, b) == pytest.approx(0.5)
  assert gpu_peers.difference(a, a) == 0
  assert math.isinf(gpu_peers.difference({}, {}))
  assert math.isinf(gpu_peers.difference(a, {'up': a['up']}))


BUILT = {'parameters': 3, 'temporary_bytes': 2e9, 'state_bytes': 1, 'compile_seconds': 1.0}


def row_of(ms, name=CONTROL, **more):
  return {
    'ms': {'median': ms, 'min': ms, 'max': ms},
    'tokens_per_second': 1.0,
    'temporary_bytes': 2e9,
    'kernels': 5 if name == KERNELS else 0,
    'parameters': 3,
    'loss': 10.0,
    'in_turns': True,
  } | more


class Scripted:
  """A worker whose builds succeed and whose turns end as they are told to."""

  def __init__(self, *turns):
    self.turns, self.skipped, self.closed = list(turns), [], 0

  def call(self, function, seconds, end, **given):
    if function.endswith(':build'):
      self.skipped.append(given['skip'])
      names = [name for name in given['peers'] if name not in given['skip']]
      return {
        'result': {name: {'kernels': 5 * (name == KERNELS)} | BUILT for name in names}
      }
    reply = self.turns.pop(0)
    if reply:
      return reply
    names = [name for name in PEERS if name not in self.skipped[-1]]
    return {'result': {name: row_of(1.0, name) for name in names}}

  def close(self):
    self.closed += 1


def measure(worker, hung=()):
  saved = []
  args = argparse.Namespace(rows=64, steps=3, dry_run=False)
  save = lambda rows: saved.append(dict(rows))
  gpu_steps.measure(worker, '60m', args, math.inf, save, hung)
  return saved


def test_a_model_that_hangs_is_left_out_and_the_others_are_timed():
  hung = {'failed': 'no answer within 30 s; stopped', 'during': KERNELS}
  worker = Scripted(hung, None)
  saved = measure(worker)
  assert worker.skipped == [[], [KERNELS]] and worker.closed == 1
  assert all(name in saved[0] for name in PEERS)  # written before any step
  last = saved[-1]
  assert last[KERNELS]['failed'] == hung['failed'] and 'ms' not in last[KERNELS]
  assert all('ms' in last[name] for name in PEERS if name != KERNELS)


def test_a_model_that_hung_at_two_sizes_is_left_out_at_others():
  hung = {name: {} for name in PEERS} | {KERNELS: {'failed': 'no answer within 30 s'}}
  record = {'sizes': {'60m': hung}, 'seconds': {'60m': 200, '130m': 80}}
  assert gpu_steps.hung_twice(record) == []
  record['sizes']['350m'] = hung
  assert gpu_steps.hung_twice(record) == [KERNELS]
  record['sizes']['130m'] = {XLA: {}}
  assert gpu_steps.seconds_of_a_size(record) == 80  # not what hangs took
  worker = Scripted(None)
  last = measure(worker, [KERNELS])[-1]
  assert worker.skipped == [[KERNELS]] and 'ms' in last[XLA]
  assert last[KERNELS] == {'failed': 'left out, since it hung twice'}


def test_each_model_may_fail_once():
  fails = [{'failed': 'CUDA_ERROR', 'during': name} for name in PEERS]
  last = measure(Scripted(*fails))[-1]
  assert [row['failed'] for row in last.values()] == ['CUDA_ERROR'] * 4


def test_when_time_is_over_what_is_known_stays():
  worker = Scripted({'failed': NO_TIME, 'during': None})
  last = measure(worker)[-1]
  assert all(row['failed'] == NO_TIME and row['parameters'] == 3 for row in last.values())
  assert len(worker.skipped) == 1


@pytest.mark.parametrize(
  ('name', 'changed', 'said'),
  [
    (KERNELS, {}, None),
    (KERNELS, {'kernels': 0}, '0 kernels are in the compiled program'),
    (XLA, {'kernels': 2}, '2 kernels are in the compiled program'),
    (KERNELS, {'loss': math.nan}, 'the loss is nan'),
    (KERNELS, {'gradient_difference': 0.06}, "gradients differ from XLA's by 0.06"),
    (KERNELS, {'gradient_difference': math.nan}, "gradients differ from XLA's by nan"),
    (KERNELS, {'gradient_difference': 0.04, 'loss_difference': 0.01}, None),
    (KERNELS, {'loss_difference': 0.03}, "the loss differs from XLA's by 0.03"),
  ],
)
def test_a_wrong_row_says_in_what(name, changed, said):
  found = gpu_steps.verdict(name, row_of(1.0, name) | changed)
  assert (said is None and found == {}) or said in found['wrong']


def record_of(peers):
  about = dict.fromkeys(('device', 'driver', 'commit', 'source', 'rows', 'repetitions'), 1)
  about |= {'versions': {}, 'dry_run': False, 'not_run': ['1b']}
  return about | {'sizes': {'60m': peers}}


def test_the_table_compares_with_the_control():
  peers = {name: row_of(ms, name) for name, ms in zip(PEERS, (20.0, 10.0, 40.0, 8.0))}
  peers[XLA] = {'failed': 'no room'}
  peers[KERNELS] |= {'gradient_difference': 0.011, 'loss_difference': 0.002}
  peers[FULL]['in_turns'] = False
  text = gpu_steps.render(record_of(peers))
  assert (
    '| 60m | ELAS, kernels | 8.00 | 8.00 | 8.00 | 1.250 | 1 | 2.00 | 5 | 10.0000' in text
  )
  assert '| 60m | full rank, SwiGLU | 20.00 (alone) |' in text
  assert '| 60m | ELAS, dense XLA | failed |' in text
  assert '- Failed: 60m, ELAS, dense XLA: no room' in text
  assert 'differ by 0.011 of their norm (accepted: 0.05), the last loss by 0.002' in text
  assert 'Not run, no time was left: 1b' in text


def test_a_wrong_result_is_loud():
  peers = {name: row_of(5.0, name) for name in PEERS}
  peers[KERNELS] |= {'wrong': "gradients differ from XLA's by 0.9 of their norm"}
  text = gpu_steps.render(record_of(peers))
  assert '| 60m | ELAS, kernels | 5.00 WRONG |' in text
  assert '- WRONG: 60m, ELAS, kernels: gradients differ' in text


@pytest.mark.parametrize(('seconds', 'begun'), [(1000, ['350m', '60m']), (100, ['350m'])])
def test_no_size_is_begun_that_cannot_end(seconds, begun, monkeypatch, tmp_path, capsys):
  clock = [0.0]
  monkeypatch.setattr(time, 'monotonic', lambda: clock[0])

  def measure(worker, size, args, end, save, hung):
    clock[0] += 50
    save({name: row_of(1.0, name) for name in PEERS})

  monkeypatch.setattr(gpu_steps, 'measure', measure)
  args = argparse.Namespace(
    sizes=['350m', '60m'], rows=64, steps=3, dry_run=False, out=tmp_path, log=None
  )
  found = {'device': 'NVIDIA H200', 'versions': {'jax': '1'}}
  assert gpu_steps.run(args, found, seconds) == 0
  text = (tmp_path / 'steps_NVIDIA_H200.md').read_text()
  assert [size for size in args.sizes if f'| {size} | {XLA} |' in text] == begun
  assert ('no time was left: 60m' in text) == (len(begun) == 1)


def test_without_a_gpu_it_says_so(capsys, tmp_path):
  assert gpu_steps.main([f'--out={tmp_path}']) == 2
  said = capsys.readouterr().out
  assert said.startswith('not available: implementation=') and said.count('\n') == 1


@pytest.mark.parametrize(
  ('flag', 'accepted'),
  [('--sizes=2b', '60m'), ('--rows=0', 'at least 1'), ('--steps=-1', 'at least 1')],
)
def test_bad_arguments_are_named(flag, accepted, capsys):
  with pytest.raises(SystemExit):
    gpu_steps.main([flag])
  said = capsys.readouterr().err
  assert flag in said and accepted in said


@pytest.mark.parametrize('main', [gpu_steps.main, gpu_proxy.main, gpu_wheels.main])
def test_a_folder_that_cannot_be_made_is_named(main, tmp_path, capsys):
  (tmp_path / 'file').write_text('')
  for name in ('file', 'file/below'):
    with pytest.raises(SystemExit, match='2'):
      main([f'--out={tmp_path / name}'])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f'--out={tmp_path / name}: cannot be made: ' in said


@pytest.mark.parametrize('main', [gpu_steps.main, gpu_proxy.main])
@pytest.mark.parametrize('value', ['nan', 'inf'])
def test_there_is_an_end(main, value, tmp_path, capsys):
  with pytest.raises(SystemExit, match='2'):
    main([f'--seconds={value}', f'--out={tmp_path}'])
  assert f'--seconds={value}: must be' in capsys.readouterr().err


def test_a_device_that_does_not_answer_is_there(monkeypatch, tmp_path, capsys):
  """What a call of checks takes for no failure is only that there is no such device."""
  hung = {'failed': 'no answer within 120 s; stopped', 'during': None}
  monkeypatch.setattr(gpu_steps.Worker, 'call', lambda *_, **__: hung)
  assert gpu_steps.main([f'--out={tmp_path}']) == 2
  said = capsys.readouterr().out
  assert 'no answer within 120 s' in said and 'not available' not in said
