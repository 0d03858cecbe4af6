"""What is timed, against what, how it is checked before, and what the tables say."""

import json

import jax
import jax.numpy as jnp
import pytest

from pallas_kernels.bench import checks, layers, report, selection, tasks, timing
from pallas_kernels.bench.candidates import candidates
from pallas_kernels.bench.peers import (
  OURS,
  PRUNED_XLA,
  UNPRUNED,
  Peer,
  cases,
  peers,
  squared_relu,
)
from pallas_kernels.bench.programs import differing_runs
from pallas_kernels.roofline import SIZES, Layer, Machine, Op, product
from pallas_kernels.two_four.cases import Case
from pallas_kernels.two_four.dispatch import H200, building_for

TOKENS = 16384
# Made up, for tests of arithmetic and of tables.
RECORD = {
  'device': 'no device', 'driver': '1.2', 'versions': {'jax': '0', 'torch': None},
  'commit': 'c', 'source': 's', 'repetitions': 3, 'timer': 'wall', 'sweeps': {},
  'checks': {'good': {'passed': True}, 'bad': {'passed': False, 'wrong_rows': 7}},
  'peaks': {'matmul_tflops': 500.0, 'bandwidth_tb': 2.0},
  'steps': {'layers': {'verdict': 'passed', 'seconds': 3.2, 'not_run': ['later']}},
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


def test_layers_come_from_small_to_large_then_cases_by_importance():
  names = [name for _, name in selection.layer_items(TOKENS, None)]
  assert names == [
    f'{size} low rank, {passes}, T16384'
    for size in ('60m', '130m', '350m', '1b')
    for passes in ('forward', 'forward and backward')
  ]
  kernels = [name for _, name in selection.kernel_items(TOKENS, None)]
  assert sorted(kernels) == sorted(cases(TOKENS))
  _, F, R = SIZES['350m']
  assert kernels[0] == f'matmul-M16384-K{F + -F % 128}-N{R}-axis=1-transpose_b=False'
  [headline] = selection.headline(TOKENS)
  assert headline[1] in cases(TOKENS)


def test_what_is_not_usual_is_measured_by_name():
  asked = [name for _, name in selection.layer_items(TOKENS, '7b full.*backward')]
  assert asked == ['7b full rank, forward and backward, T16384']
  [(_, name)] = selection.layer_items(TOKENS, '60m.*transposable')
  assert list(layers.all_layers(TOKENS)[name].floors()) == [
    'XLA dense', 'ours, transposable',
  ]  # fmt: skip


@pytest.mark.conformance
def test_headline_times_every_tile_and_both_clusters():
  """Each by its own config, whichever of the clusters is the default."""
  case = cases(TOKENS)[selection.headline(TOKENS)[0][1]]
  with building_for(H200):
    every = tasks.with_tiles(case, peers(case))
  names = [peer.name for peer in every]
  assert len(set(names)) == len(names) and OURS not in names
  assert {f'{OURS}, cluster=1', f'{OURS}, cluster=2', 'XLA dense'} <= set(names)
  key = 'matmul M=16384 K=8192 N=2048'
  assert sum(name.startswith(OURS) for name in names) >= len(candidates(key, TOKENS))
  grids = {}
  for peer in every:
    if peer.name in (f'{OURS}, cluster=1', f'{OURS}, cluster=2'):
      with building_for(H200):
        grids[peer.name] = str(jax.make_jaxpr(peer.function)(*case.abstract_inputs()))
  assert len(set(grids.values())) == 2
  made, _ = selection.floors('matmul', case.name, TOKENS)
  assert selection.floor_of(f'{OURS}, cluster=2', made) == made[OURS] != []
  assert selection.floor_of('torch', made) == []


def test_the_fastest_tile_is_ours():
  result = {
    f'{OURS}, a': times(5.0), f'{OURS}, b': times(4.0), f'{OURS}, c': {'failed': 'x'},
    'XLA dense': times(1.0),
  }  # fmt: skip
  tasks._name_fastest(result)
  assert result[OURS] == times(4.0) | {'tile': 'b'} and f'{OURS}, a' in result


@pytest.mark.parametrize('size', ['130m', '1b'])  # whose features are whole tiles
def test_saved_bytes(size):
  """H and y of bf16 without 2:4; of packed z 9/16 of a bf16 matrix. Inputs do not count."""
  layer = layers.all_layers(TOKENS)[f'{size} low rank, forward and backward, T16384']
  with building_for(H200):
    saved = {peer: layer.saved(peer)['saved_bytes'] for peer in layer.floors()}
  entries = TOKENS * SIZES[size][1]
  assert saved == {
    'XLA dense': 4 * entries, PRUNED_XLA: 9 * entries // 8,
    UNPRUNED: 2 * entries, OURS: 9 * entries // 8,
  }  # fmt: skip
  forward = layers.all_layers(TOKENS)[f'{size} low rank, forward, T16384']
  assert forward.saved(OURS) == {}


def test_squared_relu_has_its_gradient():
  h = jnp.array([-2.0, 0.0, 3.0])
  out, back = jax.vjp(squared_relu, h)
  assert out.tolist() == [0.0, 0.0, 9.0]
  assert back(jnp.ones(3))[0].tolist() == [0.0, 0.0, 6.0]


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
  assert differing_runs(lambda x: x + (next(calls) == 5), (jnp.ones(4),), 10) == 1
  assert differing_runs(lambda x: x, (jnp.ones(4),), 10) == 0


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


def test_ours_must_agree_with_itself_before_it_is_timed(monkeypatch):
  """A program that adds a little on its third run: right within the tolerance."""
  calls = iter(range(9))
  x = jnp.ones((8, 8))
  program = jax.jit(lambda x: x * 2).lower(x).compile()
  monkeypatch.setattr(tasks, 'run_poisoned', lambda program, args: program(*args))
  monkeypatch.setattr(
    tasks, 'compiled', lambda *_: lambda x: program(x) + 1e-6 * (next(calls) == 3)
  )
  function = lambda x: x * 2
  verdict, _ = tasks._check(OURS, function, (x,), x * 2, False, 'pruned')
  assert verdict['failed'] == 'its result is wrong' and verdict['differing_runs'] == 1
  verdict, _ = tasks._check('XLA dense', function, (x,), x * 2, False, 'pruned')
  assert verdict['check'] == 'passed'


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
  memory['saved_bytes'] = 3_000_000
  items = [
    {'name': 'm', 'op': 'matmul', 'peers': matmul},
    {
      'name': 'l',
      'op': 'layer',
      'peers': {OURS: good | memory, 'XLA dense': {'saved_bytes': 9_000_000}},
    },
    {'name': 'h', 'op': 'layer', 'failed': 'no answer'},
    {'name': 'n', 'op': 'layer', 'peers': {OURS: good | {'timer': 'loop', 'tile': 't'}}},
  ]
  text = report.render(RECORD | {'items': items})
  row = '| 200.0 | 190.0 | 230.0 | 205.0 | 400 | 900 | 150.0 | 75% |'
  assert f'| m | {OURS} {row} 1.50 | 2.0e-03 |' in text
  assert f'| l | {OURS} {row} - | 2.0e-03 | 5 | 1 | - | 3 (0.33) |' in text
  assert f'| n | {OURS} (t) | 200.0 (loop) |' in text
  assert 'First contact: 1 of 2 passed' in text and 'Failed, bad: `{' in text
  assert f'| m | {UNPRUNED} | failed |' in text
  assert f'- m, {UNPRUNED}: its result is wrong' in text and '- h: no answer' in text
  assert '500 TFLOP/s' in text and 'no device, driver 1.2' in text and 'later' in text
  assert (
    report.line(items[0])
    == f'm: XLA dense 300.0 us, {OURS} 200.0 us (1.50x), {UNPRUNED} failed'
  )
  for table in (part.splitlines() for part in text.split('\n\n') if part.startswith('|')):
    assert len({line.count(' | ') for line in table}) == 1
