"""Benchmark, tuning and GPU check without a GPU: their arithmetic, checks and refusals."""

import json
import os
import time
import types

import jax
import jax.numpy as jnp
import pytest

from pallas_kernels import gpu_check, tune
from pallas_kernels.bench import __main__ as bench
from pallas_kernels.bench import checks, layers, report, selection, tasks, timing
from pallas_kernels.bench.peers import OURS, PRUNED_XLA, UNPRUNED, Peer, cases, peers
from pallas_kernels.bench.workers import Worker, call_skipping, note, without_folders
from pallas_kernels.roofline import SIZES, Layer, Machine, Op, product
from pallas_kernels.two_four import dispatch
from pallas_kernels.two_four.cases import Case

HERE = 'tests.pallas_kernels.bench_test'
TOKENS = 16384
# Made up, for tests of arithmetic and of tables.
RECORD = {
  'device': 'no device', 'driver': '1.2', 'versions': {'jax': '0', 'torch': None},
  'commit': 'c', 'source': 's', 'repetitions': 3, 'timer': 'wall',
  'peaks': {'matmul_tflops': 500.0, 'bandwidth_tb': 2.0}, 'not_run': ['later'],
}  # fmt: skip


def times(median, least=None, most=None):
  return {'us': {'median': median, 'min': least or median, 'max': most or median}}


def test_record_is_json_as_its_standard_has_it(tmp_path):
  report.write_json(tmp_path / 'r.json', {'error': [float('nan'), (float('-inf'), 0.5)]})
  fail = lambda name: pytest.fail(name)
  found = json.loads((tmp_path / 'r.json').read_text(), parse_constant=fail)
  assert found == {'error': ['nan', ['-inf', 0.5]]}


# Floors


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize(
  ('op', 'shape', 'wide', 'sparse'),
  [
    ('matmul', 'MKN', 9 / 8, 1.0),
    ('up_compress', 'TKF', 9 / 8, 0.0),
    ('gated_backward', 'TNF', 17 / 8, 0.0),
  ],
)
def test_floors_are_those_of_the_roofline(size, op, shape, wide, sparse):
  _, F, R = SIZES[size]
  letters = {'M': TOKENS, 'T': TOKENS, 'F': F, 'K': R, 'N': R}
  letters |= {'K': F} if op == 'matmul' else {}
  case = Case(op, {letter: letters[letter] for letter in shape})
  ours = next(peer.floor for peer in peers(case) if peer.name == OURS)
  expected = product(Layer(size, TOKENS, low_rank=True), '', wide, sparse)
  assert Machine().floor(ours) == pytest.approx(Machine().floor([expected]))


def test_floors_by_hand():
  # T F = 134.2 M; 2 T R + 2 R F + 2 R F + 2 T R bytes, 4 T F R FLOPs
  floors = lambda op, **shape: {
    peer.name: peer.floor
    for peer in peers(Case(op, shape, {'axis': 1} if len(shape) == 2 else {}))
  }
  compress = floors('compress', T=TOKENS, F=8192)
  assert compress[OURS][0].bytes == pytest.approx(3.125 * TOKENS * 8192)
  assert compress['ours, both axes'][0].bytes == pytest.approx(4.25 * TOKENS * 8192)
  fused = floors('feed_forward', T=TOKENS, R=256, F=3072, N=256)
  assert fused[OURS] == [Op('', 4 * 256 * (TOKENS + 3072), 25_769_803_776, 25_769_803_776)]
  assert fused[UNPRUNED] == [Op('', 4 * 256 * (TOKENS + 3072), 51_539_607_552)]
  # Above rank 256 z goes through memory: written by one kernel, read by another.
  ours = floors('feed_forward', T=TOKENS, R=512, F=8192, N=512)[OURS]
  assert [op.bytes for op in ours] == [
    2 * 512 * (TOKENS + 8192) + 9 / 8 * TOKENS * 8192
  ] * 2
  gradient = floors('weight_gradient', T=TOKENS, F=8192, N=512)[OURS][0]
  assert gradient.bytes == 9 / 8 * TOKENS * 8192 + 2 * TOKENS * 512 + 4 * 8192 * 512


def test_rates():
  # 300 us at least for 0.3 GB at 1 TB/s; 100 us for the product at 1 TFLOP/ms.
  floor, machine = [Op('', 3e8, dense_flops=1e11)], Machine(1000.0, 1.0)
  assert report.rates(times(600.0), floor, 1e11, machine) == {
    'gb_per_s': 500.0, 'tflops': 166.7, 'floor_us': 300.0, 'share': 0.5,
  }  # fmt: skip
  assert report.rates({'failed': 'x'}, floor, 1e11, machine) == {}
  assert 'share' not in report.rates(times(600.0), floor, 1e11, None)


# What is measured


def test_the_most_important_come_first():
  names = [name for _, name in selection.items(list(selection.OPS), list(SIZES), TOKENS)]
  assert (
    len(names) == len(set(names)) == len(cases(TOKENS)) + len(layers.all_layers(TOKENS))
  )
  assert names[0] == 'matmul-M16384-K8192-N2048-axis=1-transpose_b=False'
  assert [name.split(',')[0] for name in names[1:5]] == ['350m low rank'] * 2 + [
    '1b low rank'
  ] * 2
  only = selection.items(['matmul'], ['60m'], 64)
  assert {name.split('-axis')[0] for _, name in only} == {'matmul-M64-K2176-N128'}


@pytest.mark.parametrize(
  ('module', 'option'),
  [(bench, '--repetitions'), (tune, '--checks'), (gpu_check, '--minutes')],
)
def test_help(module, option, capsys):
  with pytest.raises(SystemExit, match='0'):
    module.main(['--help'])
  out = capsys.readouterr().out
  assert f'\n  {option} ' in out and '\n  --out ' in out and '\n  python -m ' in out


def test_dry_run_builds_and_lists(capsys):
  assert bench.main(['--dry_run', '--ops=layer', '--sizes=60m']) == 0
  out = capsys.readouterr().out
  assert 'nothing is measured' in out and 'failed' not in out
  assert len(out.splitlines()) == 1 + 4
  # As python -m pallas_kernels.roofline --all has it.
  expected = 'XLA dense 146.1, XLA 2:4 205.1, ours, unpruned 134.4, ours 95.6'
  assert f'60m low rank, forward and backward, T16384: {expected}' in out


def test_dry_run_reports_what_cannot_be_built(capsys, monkeypatch):
  monkeypatch.setattr(bench, '_build', lambda *_: [].pop())
  assert bench.main(['--dry_run', '--ops=up_compress', '--sizes=60m']) == 1
  assert 'up_compress-T16384-K128-F2176: failed: IndexError' in capsys.readouterr().out


@pytest.mark.parametrize('module', [bench, tune])
def test_refuses_without_a_gpu(module, capsys, tmp_path):
  assert module.main([f'--out={tmp_path}']) == 2
  assert 'not available: ' in capsys.readouterr().out
  assert not [path for path in tmp_path.iterdir() if path.suffix != '.log']


def test_names_what_is_accepted(capsys):
  with pytest.raises(SystemExit):
    bench.main(['--ops=matmul,expand'])
  assert "'expand': must be among matmul, layer" in capsys.readouterr().err


# Checks


def test_compare():
  x = jax.random.normal(jax.random.key(0), (256, 128), jnp.bfloat16)
  y = x.astype(jnp.float32)
  assert checks.compare(x, x, bits=True)['passed']
  assert checks.compare(y * 1.004, y, bits=False)['passed']
  assert not checks.compare(y * 1.011, y, bits=False)['passed']
  assert not checks.compare(y.at[1, 2].set(jnp.nan), y, bits=False)['passed']
  assert not checks.compare(x, x.T, bits=False)['passed']
  # One wrong entry is little of the whole, and much of its row.
  wrong = y.at[70, 3].add(1)
  result = checks.compare(wrong, y, bits=False)
  assert result['error'] < checks.LARGEST_ERROR and not result['passed']
  assert result['where'][0]['wrong'] == 1
  assert result['where'][0]['axis 0 mod 64'] == [6]
  one = jnp.uint32(1)
  assert not checks.compare(
    jnp.zeros(8, jnp.uint32).at[3].set(one), jnp.zeros(8, jnp.uint32), False
  )['passed']


def test_what_changes_from_run_to_run_is_counted():
  calls = iter(range(20))
  assert checks.differing_runs(lambda x: x + (next(calls) == 5), (jnp.ones(4),), 10) == 1
  assert checks.differing_runs(lambda x: x, (jnp.ones(4),), 10) == 0


def test_what_fails_is_not_timed(monkeypatch):
  """Peers in plain jnp: a right one, a wrong one, and one that cannot run."""
  case = Case('weight_gradient', {'T': 64, 'F': 128, 'N': 64})
  right = case.function('xla')

  def broken(*_):
    raise ValueError('no such tile')

  made = {PRUNED_XLA: (right, ''), OURS: (lambda *x: 1.1 * right(*x), 'pruned')}
  made |= {'right': (right, 'pruned'), 'broken': (broken, 'pruned')}
  made = [Peer(name, function, [], like) for name, (function, like) in made.items()]
  monkeypatch.setattr(tasks, 'cases', lambda tokens: {'case': case})
  monkeypatch.setattr(tasks, 'peers', lambda case: made)
  monkeypatch.setattr(timing, 'TURN_SECONDS', 0.0)
  result = tasks.time_case('case', 64, 2, 'wall', seed=1, skip=['skipped'])['peers']
  assert {name for name in result if 'us' in result[name]} == {PRUNED_XLA, 'right'}
  assert result[OURS]['check'] == 'failed' and result[OURS]['error'] == pytest.approx(
    0.1, abs=0.01
  )
  assert result['broken'] == {'failed': 'ValueError: no such tile'}


def test_without_a_device_timer_the_clock_is_used():
  call = timing.rotating(jax.jit(lambda x: x + 1), [(jnp.ones(4),)])
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(timing, '_kernels', broken_timer)
    result = timing.in_turns({'a': call}, 2, 'cupti')['a']
  assert result['us'] == result['wall_us'] and 'no kernels' in result['timer_failed']
  assert timing.sets_needed(jnp.ones(1 << 24)) == 2  # 67 MB: two exceed the cache twice


def broken_timer(call, count):
  raise RuntimeError('no kernels')


# Processes


def stumble(skip):
  """Runs in a worker: of three parts one never ends, one ends the process."""
  for part in ('hangs', 'dies', 'works'):
    if part in skip:
      continue
    note(part)
    if part == 'hangs':
      time.sleep(60)
    if part == 'dies':
      os._exit(3)
  return 'came through'


def test_a_part_that_hangs_or_dies_is_left_out():
  with Worker() as worker:
    end = time.monotonic() + 60
    reply, failed = call_skipping(
      worker, f'{HERE}:stumble', 6, end, known={'hangs': 'before'}
    )
    assert reply == {'result': 'came through'}
    assert failed == {'hangs': 'before', 'dies': 'the process ended with status 3'}
    hung = worker.call(f'{HERE}:stumble', 1, skip=[])
    assert hung == {'failed': 'no answer within 1 s; stopped', 'during': 'hangs'}
    assert worker.call(f'{HERE}:stumble', 9, 0.0, skip=[])['failed'] == 'no time was left'


def test_no_folders_in_what_is_kept():
  text = (
    'File "/usr/lib/python3/site-packages/jax/x.py", line 3: 1/2, and/or, jax/_src/y.py'
  )
  assert without_folders(text) == 'File "x.py", line 3: 1/2, and/or, jax/_src/y.py'


# Tables


def test_renders_the_record():
  good = times(200.0, 190.0, 230.0) | {
    'wall_us': times(205.0)['us'], 'tflops': 400.0, 'gb_per_s': 900.0,
    'floor_us': 150.0, 'share': 0.75, 'error': 0.002,
  }  # fmt: skip
  matmul = {
    'XLA dense': times(300.0),
    OURS: good,
    UNPRUNED: {'failed': 'its result is wrong'},
  }
  memory = {'temp_bytes': 5_000_000, 'output_bytes': 1_000_000, 'device_peak_bytes': None}
  items = [
    {'name': 'm', 'op': 'matmul', 'peers': matmul},
    {'name': 'l', 'op': 'layer', 'peers': {OURS: good | memory}},
    {'name': 'h', 'op': 'layer', 'failed': 'no answer'},
  ]
  text = report.render(RECORD | {'items': items})
  row = '| 200.0 | 190.0 | 230.0 | 205.0 | 400 | 900 | 150.0 | 75% |'
  assert f'| m | {OURS} {row} 1.50 | 2.0e-03 |' in text
  assert f'| l | {OURS} {row} - | 2.0e-03 | 5 | 1 | - |' in text
  assert f'| m | {UNPRUNED} | failed |' in text
  assert f'- m, {UNPRUNED}: its result is wrong' in text and '- h: no answer' in text
  assert '500 TFLOP/s' in text and 'no device, driver 1.2' in text and 'later' in text
  assert (
    report.line(items[0])
    == f'm: XLA dense 300.0 us, {OURS} 200.0 us (1.50x), {UNPRUNED} failed'
  )
  for table in (part.splitlines() for part in text.split('\n\n') if part.startswith('|')):
    assert len({line.count(' | ') for line in table}) == 1


# Tuning


def sweep_record(**changes):
  rows = [{'config': {'stages': 1}} | times(100.0, 97.0, 104.0)]
  rows += [
    {'config': {'stages': 2}} | times(90.0),
    {'config': {'stages': 3}, 'failed': 'x'},
  ]
  passed = {name: {'passed': True} for name in checks.contact(0)}
  record = {'device': 'Test Device', 'versions': {}, 'commit': 'c', 'source': 's'}
  return record | {'checks': passed, 'sweeps': {'matmul M=1 K=2 N=3': rows}} | changes


def test_writes_what_dispatch_reads(tmp_path, monkeypatch):
  assert tune.finish(sweep_record(), tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['Test_Device.json']
  monkeypatch.setattr(dispatch, 'TUNED', tmp_path)
  monkeypatch.setattr(
    dispatch, '_device', lambda: types.SimpleNamespace(device_kind='Test Device')
  )
  default = tune_default(1)
  shape = {'M': 1, 'K': 2, 'N': 3}
  assert dispatch.tuned_config('matmul', shape, default) == tune_default(2)
  assert dispatch.tuned_config('matmul', shape | {'N': 4}, default) is default


def tune_default(stages):
  from pallas_kernels.two_four.mosaic_gpu.feed_forward import Config

  return Config(stages=stages)


@pytest.mark.parametrize('kind', ['failed', 'missing', 'default'])
def test_writes_nothing_if_a_check_failed(kind, tmp_path, capsys):
  record = sweep_record()
  if kind == 'failed':
    record['checks'][next(iter(checks.contact(0)))] = {'passed': False}
  elif kind == 'missing':
    del record['checks'][next(iter(checks.contact(0)))]
  else:
    record['sweeps']['matmul M=1 K=2 N=3'][0] = {'config': {}, 'failed': 'wrong result'}
  assert not tune.finish(record, tmp_path)
  assert not list(tmp_path.iterdir())
  assert '1 failed, no tuned file' in capsys.readouterr().out


def test_takes_a_config_only_beyond_the_spread():
  default = {'config': {'stages': 1}} | times(100.0, 97.0, 104.0)
  within, beyond = ({'config': {'stages': 2}} | times(us) for us in (98.0, 96.0))
  assert tune.best([default, within]) is None
  assert tune.best([default, within, beyond]) == {'stages': 2}
  assert tune.best([{'failed': 'x'}, {'failed': 'y'}]) is None


def test_keeps_what_other_runs_found_for_the_same_kernels(tmp_path):
  old = {'device': 'Test Device', 'source': 's', 'configs': {'other': {}}, 'times': {}}
  path = tmp_path / 'Test_Device.json'
  for source, kept in (('s', {'other'}), ('older', set())):
    path.write_text(json.dumps(old | {'source': source}))
    tune.finish(sweep_record(), tmp_path)
    assert set(json.loads(path.read_text())['configs']) == kept | {'matmul M=1 K=2 N=3'}


def test_tuning_uses_the_keys_of_the_kernels(capsys):
  assert tune.main(['--dry_run', '--ops=gated_backward,feed_forward', '--sizes=130m']) == 0
  out = capsys.readouterr().out.splitlines()
  keys = [line for line in out if line.endswith('cases')]
  assert keys == [
    'gated_backward T=16384 K=256 F=3072, for 1 cases',
    'feed_forward T=16384 R=256 F=3072 N=256, for 1 cases',
  ]
  assert out[out.index(keys[1]) + 1] == '  warpgroups=2 stages=1'  # the default


# GPU check


def test_gpu_check_without_a_gpu(tmp_path, capsys):
  assert gpu_check.main([f'--out={tmp_path}']) == 0
  out = capsys.readouterr().out
  for step in ('first contact', 'gpu tests', 'bench', 'tune'):
    assert f'| {step} | not available | 0 |' in out
    assert f'{step}: passed' not in out
  for step in ('bench', 'tune'):
    assert f'| {step}, dry run | passed |' in out
  record = json.loads((tmp_path / 'gpu_check.json').read_text())
  assert record['checks'] == {} and record['device'] == 'cpu'
  assert {path.name for path in tmp_path.iterdir()} == {
    'gpu_check.json', 'gpu_check.md', 'gpu_check.log',
  }  # fmt: skip


def test_gpu_check_reports_failures_and_goes_on(tmp_path):
  check = gpu_check.Check(tmp_path, minutes=1)
  check.record['checks'] = {'a': {'passed': True}, 'b': {'passed': False, 'error': 1.0}}
  check.command('sleeps', ['timeit', '-n1', 'while True: pass'], 1, tmp_path / 'a.log')
  check.command('fails', ['no_such_module'], 20, tmp_path / 'a.log')
  steps = check.record['steps']
  assert steps['sleeps']['verdict'] == 'stopped after 1 s'
  assert steps['fails']['verdict'] == 'failed, status 1'
  text = (tmp_path / 'gpu_check.md').read_text()
  assert '1 of 2 passed' in text and 'No module named no_such_module' in text
  assert text.splitlines()[-1].startswith('| fails | failed, status 1 |')
