"""The roofline against arithmetic by hand."""

import ast
import inspect
import pathlib
import sys

import pytest

from configs import c4
from pallas_kernels import machine, roofline
from pallas_kernels.roofline import CONTROL, METHODS, SIZES, Layer, Machine, Op

IDEAL = Machine()
FULL_1B = Layer(
  '1b', 16384, low_rank=False
)  # T F = 134.2 M entries; 0.5498 TFLOP a product


def floor(layer, method, training, gain=2.0):
  return Machine(sparse_gain=gain).floor(roofline.ops(layer, method, training))


def by_name(layer, method):
  return {op.name: op for op in roofline.ops(layer, method, training=True)}


def test_sizes_are_those_of_the_configs():
  assert set(SIZES) == set(c4.SIZES) - {'tiny'}
  for size, widths in SIZES.items():
    model = c4.get_config(f'{size},elas').model
    assert widths == (model.width, model.feed_forward_width, model.linear.rank)


def test_floor_takes_the_larger_of_each_op():
  machine = Machine(matmul_tflops=2, bandwidth_tb=4, sparse_gain=1.5)
  products = Op('product', bytes=4e6, dense_flops=2e6, sparse_flops=6e6)
  assert machine.compute(products) == pytest.approx(1 + 2)
  assert machine.memory(products) == pytest.approx(1)
  assert machine.floor([products, Op('pass', bytes=20e6)]) == pytest.approx(3 + 5)


@pytest.mark.parametrize(
  ('method', 'name', 'megabytes', 'compute', 'memory'),
  [
    # 2 (16384 8192 + 2048 8192 + 16384 2048) bytes; 2 16384 2048 8192 / 790e12 s
    (('dense', 'separate'), 'out = z W2', 369.1, 695.9, 85.8),
    (('dense', 'separate'), 'relu2', 536.9, 0, 124.9),  # reads h, writes y
    (('dense', 'separate'), 'gradient of relu2', 805.3, 0, 187.3),
    # Packed, 151.0 MB instead of 268.4, at twice the rate.
    (('exact', 'separate'), 'out = z W2', 251.7, 347.9, 58.5),
    (('exact', 'separate'), 'compress', 419.4, 0, 97.5),
    # Both ways in one read.
    (('transposable', 'separate'), 'compress', 570.4, 0, 132.7),
    # dz and a packed tensor in, a packed one and the values of another out.
    (('transposable', 'separate'), 'gradient of relu2', 704.6, 0, 163.9),
    # dz and packed z in, the values of dh, dense dh and dense z out.
    (('exact', 'separate'), 'gradient of relu2', 1090.5, 0, 253.6),
    # 268.4 dz + 151.0 z in, 134.2 out and twice 0.95 151.0 + 0.05 268.4.
    (('split', 'separate'), 'gradient of relu2', 867.4, 0, 201.7),
    # 67.1 x + 33.6 W + 151.0 packed z: neither h nor y; unpruned 268.4 y.
    (('exact', 'fused'), 'up_compress', 251.7, 695.9, 58.5),
    (CONTROL, 'up_relu2', 369.1, 695.9, 85.8),
    # 67.1 g + 33.6 W + 151.0 z in, 134.2 values of dh out; unpruned y in, dh out.
    (('exact', 'fused'), 'gated_backward', 385.9, 695.9, 89.7),
    (CONTROL, 'gated_backward', 637.5, 695.9, 148.3),
    # Expanded in the kernel: packed bytes, dense rate.
    (('exact', 'fused'), 'dW2 = z^T g', 251.7, 695.9, 58.5),
    (('exact', 'separate'), 'dW2 = z^T g', 369.1, 695.9, 85.8),
    # 0.95 151.0 + 0.05 268.4 + 100.7; 0.95 / 2 + 0.05 of the time.
    (('split', 'fused'), 'dW1 = x^T dh', 257.5, 365.3, 59.9),
    (('transposable', 'fused'), 'dW1 = x^T dh', 251.7, 347.9, 58.5),
  ],
)
def test_ops_of_the_full_rank_layer_of_1b(method, name, megabytes, compute, memory):
  op = by_name(FULL_1B, method)[name]
  assert op.bytes / 1e6 == pytest.approx(megabytes, abs=0.06)
  assert IDEAL.compute(op) == pytest.approx(compute, abs=0.06)
  assert IDEAL.memory(op) == pytest.approx(memory, abs=0.06)


def test_dense_full_rank_layer_of_1b():
  # 2 and 6 products of 695.9 us; 124.9 and 124.9 + 187.3 of passes.
  for kernels, forward, both in (
    ('separate', 1516.7, 4487.6),
    ('epilogues', 1391.8, 4175.4),
    ('fused', 1391.8, 4175.4),
  ):
    assert floor(FULL_1B, ('dense', kernels), False) == pytest.approx(forward, abs=0.5)
    assert floor(FULL_1B, ('dense', kernels), True) == pytest.approx(both, abs=0.5)


@pytest.mark.parametrize(
  ('gain', 'forward', 'both', 'over_dense', 'all_fused'),
  [
    # 696 + 98 + 696 / g; 2 696 + 133 + 164 + 4 696 / g; 4487 / that; 6 / (2 + 4 / g)
    (2.0, 1141, 3080, 1.46, 1.500),
    (1.56, 1240, 3473, 1.29, 1.315),
    (1.35, 1309, 3750, 1.20, 1.209),
    (1.2, 1373, 4008, 1.12, 1.125),
    (1.1, 1426, 4219, 1.06, 1.065),
  ],
)
def test_pruned_full_rank_layer_of_1b(gain, forward, both, over_dense, all_fused):
  separate, fused = ('transposable', 'separate'), ('transposable', 'fused')
  assert floor(FULL_1B, separate, False, gain) == pytest.approx(forward, abs=1)
  assert floor(FULL_1B, separate, True, gain) == pytest.approx(both, abs=1)
  dense = floor(FULL_1B, METHODS[0], True)
  assert dense / floor(FULL_1B, separate, True, gain) == pytest.approx(
    over_dense, abs=0.006
  )
  control = floor(FULL_1B, CONTROL, True)
  assert control / floor(FULL_1B, fused, True, gain) == pytest.approx(all_fused, abs=0.001)


def test_recipes_differ_in_the_rate_of_weight_gradients():
  # 2 dz and h dense, 2 sparse; the weight gradients dense, 95 % sparse, sparse: in 695.9 us
  for recipe, products in (('exact', 5), ('split', 3 + 2 * 0.525), ('transposable', 4)):
    took = floor(FULL_1B, (recipe, 'fused'), True)
    assert took == pytest.approx(products * 695.9, abs=0.5)


def test_low_rank_layer_of_130m_by_hand():
  """D = 768, F = 3072, R = 256 and T = 1000: T F = 3,072,000."""
  layer = Layer('130m', 1000, low_rank=True)
  flops, small = 1_572_864_000, 2_084_864  # 2 T F R; 2 (T R + F R)
  outer = 393_216_000, 2_441_216  # 2 T D R; 2 (T D + T R + D R)
  # name, dense FLOPs, sparse FLOPs, bytes
  expected = [
    ('s = x A1', outer[0], 0, outer[1]),
    ('feed_forward', flops, flops, 2 * small + 3_456_000),  # 9/8 T F, saved
    ('out = t B2', outer[0], 0, outer[1]),
    ('dt = g B2^T', outer[0], 0, outer[1]),
    ('dB2 = t^T g', outer[0], 0, outer[1]),
    ('gated_backward', flops, 0, small + 3_456_000 + 3_072_000),
    ('ds = dh B1^T', 0, flops, small + 3_456_000),
    ('dA2 = z^T dt', flops, 0, small + 3_456_000),
    ('dB1 = s^T dh', flops, 0, small + 3_456_000),
    ('dx = ds A1^T', outer[0], 0, outer[1]),
    ('dA1 = x^T ds', outer[0], 0, outer[1]),
  ]
  ours = roofline.ops(layer, ('exact', 'fused'), training=True)
  assert [(x.name, x.dense_flops, x.sparse_flops, x.bytes) for x in ours] == expected

  # Nothing F-wide is moved unless it is saved: unpruned 2 T F bytes, transposable 9/8.
  moved = lambda method, training: (
    roofline.forward(layer, method, training)[1].bytes - 2 * small
  )
  assert moved(('exact', 'fused'), False) == moved(CONTROL, False) == 0
  assert moved(CONTROL, True) == 6_144_000
  assert moved(('transposable', 'fused'), True) == 3_456_000


def test_feed_forward_is_one_kernel_up_to_rank_256():
  for size, (_, _, rank) in SIZES.items():
    for low_rank in (True, False):
      names = by_name(Layer(size, 64, low_rank), ('exact', 'fused'))
      assert ('feed_forward' in names) == (low_rank and rank <= 256)
      assert ('up_compress' in names) != ('feed_forward' in names)
    assert 'feed_forward' not in by_name(Layer(size, 64, True), ('dense', 'epilogues'))


@pytest.mark.parametrize('low_rank', [True, False])
@pytest.mark.parametrize('size', SIZES)
def test_every_method_has_the_same_flops(size, low_rank):
  layer, (D, F, R) = Layer(size, 64, low_rank), SIZES[size]
  flops = 12 * 64 * (F * R + D * R if low_rank else F * D)
  for method in METHODS:
    ops = roofline.ops(layer, method, training=True)
    assert sum(x.dense_flops + x.sparse_flops for x in ops) == pytest.approx(flops)
    alone = roofline.ops(layer, method, training=False)
    assert sum(x.dense_flops + x.sparse_flops for x in alone) == pytest.approx(flops / 3)


def test_gains_of_single_kernels():
  gains = {
    name: [roofline.ratio(IDEAL, ours, theirs) for theirs in (replaced, unpruned)]
    for name, ours, replaced, unpruned in roofline.comparisons(FULL_1B)
  }
  # 4 bytes for 3.125; 6.25 for 4.25
  assert gains['compress, one way'] == ['-', '1.28']
  assert gains['compress, both ways in one read'] == ['1.47', '0.94']
  assert gains['matmul, out = z W2'] == ['2.00', '2.00']
  # (695.9 + 97.5) / 695.9, (695.9 + 132.7) / 695.9, (695.9 + 253.6) / 695.9
  assert gains['up_compress'] == ['1.14', '1.00']
  assert gains['up_compress, both ways'] == ['1.19', '1.00']
  assert gains['gated_backward, exact'] == ['1.36', '1.00']
  assert gains['weight gradients, split'] == ['1.90', '1.90']  # 1 / 0.525
  assert gains['feed_forward'] == gains['feed_forward that saves z'] == ['-', '-']


def test_gains_of_feed_forward():
  """At 130m products take 32.62 us, sparse 16.31, and compress of 157.3 MB 36.58."""
  rows = {x[0]: x[1:] for x in roofline.comparisons(Layer('130m', 16384, True))}
  ours, replaced, unpruned = rows['feed_forward that saves z']
  assert IDEAL.floor(ours) == pytest.approx(48.93, abs=0.01)
  assert IDEAL.floor(replaced) == pytest.approx(85.51, abs=0.01)
  assert IDEAL.floor(unpruned) == pytest.approx(65.24, abs=0.01)


def test_prints_every_op_and_the_sums(capsys):
  roofline.main(['--size=1b', '--full_rank', '--sparse_gain=1.2'])
  out = capsys.readouterr().out
  assert '| gated_backward | 549.8 | 385.9 | 695.9 | 89.7 | 695.9 |' in out
  assert out.count('| total |') == out.count('| backward |') == len(METHODS)
  dense = out[: out.index('1b full rank: dense, epilogues')]
  for line in ('forward |  |  |  |  | 1516.6', 'total |  |  |  |  | 4487.5'):
    assert line in dense
  assert 'low rank' not in out
  assert 'given, not measured' in out


def test_prints_all_sizes_as_markdown(capsys):
  roofline.main(['--all', '--tokens=16384', '--sparse_gain=1.1'])
  out = capsys.readouterr().out
  for size in SIZES:
    for kind in ('low', 'full'):
      assert out.count(f'| {size} {kind} rank |') == 4  # three rows and a heading
      assert out.count(f'| {size} {kind} rank, forward') == 2
  assert '| 1b full rank | 1517 | 1392 | 1392 | 1426 | 1329 |\n' in out
  # A sparse gain beside the usual ones has a column: 12 / (6 + 4 / 1.1) - 1 and so on.
  assert '| layer | sparse gain 1.1 | sparse gain 1.2 | sparse gain 1.35 |' in out
  assert '| 1b full rank | 1.05; 1.03 / 1.06 / 1.06 |' in out
  tables = [part.splitlines() for part in out.split('\n\n') if part.startswith('|')]
  assert len(tables) == 7
  for table in tables:
    assert len({line.count(' | ') for line in table}) == 1


def test_each_device_has_its_peaks(capsys):
  def short(*arguments):
    roofline.main(['--all', *arguments])
    out = capsys.readouterr().out
    return next(line for line in out.splitlines() if '| 1b full rank, forward |' in line)

  # Two products of 549.8 GFLOP at 798 TFLOP/s, and 536.9 MB at 3.0 TB/s; two products;
  # one and a half. 2 / (1 + 1 / g) of gain.
  expected = '| 1b full rank, forward | 1557 | 1378 | 1033 | 1.09 | 1.15 | 1.22 | 1.33 |'
  assert short('--device=h100') == expected
  assert short('--matmul_tflops=798', '--bandwidth_tb=3') == expected
  assert (
    short('--device=h200')
    == short()
    == expected.replace('1557', '1517').replace('1378', '1392').replace('1033', '1044')
  )
  # 689.0 us a product; 536.9 MB at 1 TB/s
  assert short('--device=h100', '--bandwidth_tb=1').split(' | ')[1] == '1915'


def test_the_readme_has_what_it_prints(capsys):
  roofline.main(['--all'])
  roofline.main(['--all', '--device=h100'])
  printed = capsys.readouterr().out
  readme = (pathlib.Path(roofline.__file__).parent / 'README.md').read_text()
  predicted = readme.partition('## Predicted')[2].partition('\n## ')[0]
  rows = [line for line in predicted.splitlines() if line.startswith('|')]
  assert len(rows) > 30
  assert set(rows) <= set(printed.splitlines())


@pytest.mark.parametrize(
  ('argument', 'value', 'accepted'),
  [
    ('--size', '2b', "'60m', '130m', '350m', '1b', '7b'"),
    ('--device', 'a100', "'h100', 'h200'"),
    ('--tokens', '0', 'a multiple of 4 above 0'),
    ('--tokens', '6', 'a multiple of 4 above 0'),
    ('--tokens', '1e3', 'a multiple of 4 above 0'),
    ('--matmul_tflops', '-1', 'above 0 and at most 1e+06'),
    ('--bandwidth_tb', 'nan', 'above 0 and at most 1e+06'),
    ('--bandwidth_tb', 'fast', 'above 0 and at most 1e+06'),
    ('--sparse_gain', '2.1', 'above 0 and at most 2'),
    ('--sparse_gain', '0', 'above 0 and at most 2'),
  ],
)
def test_bad_values_are_named(capsys, argument, value, accepted):
  with pytest.raises(SystemExit) as stopped:
    roofline.main([f'{argument}={value}'])
  message = capsys.readouterr().err.splitlines()[-1]
  assert stopped.value.code == 2
  assert f'argument {argument}: ' in message
  assert f"'{value}'" in message and accepted in message


@pytest.mark.parametrize('arguments', ['--all --size=1b', '--low_rank --full_rank', '--al'])
def test_refuses_what_contradicts(capsys, arguments):
  with pytest.raises(SystemExit) as stopped:
    roofline.main(arguments.split())
  assert stopped.value.code == 2
  assert arguments.split()[-1].split('=')[0] in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize('module', [roofline, machine], ids=lambda m: m.__name__)
def test_imports_only_the_standard_library(module):
  modules = set()
  for node in ast.walk(ast.parse(inspect.getsource(module))):
    if isinstance(node, ast.Import):
      modules |= {name.name for name in node.names}
    elif isinstance(node, ast.ImportFrom):
      modules.add(node.module)
  assert modules and modules - {machine.__name__} <= sys.stdlib_module_names
