"""Floor times of a feed-forward layer with squared ReLU, dense and 2:4, kernel by kernel.

  python -m pallas_kernels.roofline --size=1b --tokens=16384 --low_rank
  python -m pallas_kernels.roofline --all --device=h100

An op takes no less than

  floor = max(dense FLOPs / P + sparse FLOPs / (g P), bytes / W)

with the matmul rate P, the copy bandwidth W and the gain g of 2:4 over dense tensor cores.
P and W are given, not measured here; their defaults are those of --device. A tensor moves
once in each op that needs it, even where a cache would hold it; launches, waste at tiles'
edges and arithmetic outside of products are free. What g can be: machine.py.

The layer, T tokens, width D, features F, and the inner width K of the products with an
F-wide tensor (R in a low-rank layer, D in a full-rank one):

  low rank   s = x A1,  h = s B1,  y = relu(h)^2,  z = prune(y),  t = z A2,  out = t B2
  full rank             h = x W1,  y = relu(h)^2,  z = prune(y),           out = z W2

All is bf16. Packed z has half the values and 1 bit of metadata per dense entry: 9/8 bytes
instead of 2. The recipes differ in the gradients of the weights, which contract tokens:

  exact         z and dh are packed along features, with one metadata; a weight gradient
                expands them inside the kernel: sparse bytes, dense rate
  split         95 % of the features are packed along tokens as well, for weight gradients
                at the sparse rate; 5 % are dense. These copies are written on the way back,
                when it is known which 5 %. Permuting the tokens is not counted
  transposable  z' and dh are packed both ways, and all contracts at the sparse rate. z'
                along tokens is written on the way forward, and alone saved

Each runs `separate` (products and passes over memory; the weight gradients of `exact` then
read dense tensors) or `fused`: our kernels up_compress and gated_backward, or, up to rank
256, feed_forward from s to t. The control is `fused` without pruning; `dense, epilogues`
has relu^2 and its gradient in the epilogues of products, and no feed_forward.
"""

import argparse
import dataclasses
import functools
import itertools
import math

from pallas_kernels.machine import PEAKS, Machine, Op, bounds

# D, F (squared ReLU), R of the models trained on C4.
SIZES = {
  '60m': (512, 2064, 128),
  '130m': (768, 3072, 256),
  '350m': (1024, 4112, 256),
  '1b': (2048, 8192, 512),
  '7b': (4096, 16512, 1024),
}
GAINS = (1.2, 1.35, 1.56, 2.0)
# Bytes per entry of a T x F tensor.
DENSE, VALUES = 2.0, 1.0
PACKED = VALUES + 1 / 8
DENSE_SHARE = 0.05  # of the features, in 'split'
SPLIT = (1 - DENSE_SHARE) * PACKED + DENSE_SHARE * DENSE
LARGEST_FUSED = 256  # K that feed_forward has room for

RECIPES = ('exact', 'split', 'transposable')
CONTROL = ('dense', 'fused')
METHODS = [('dense', 'separate'), ('dense', 'epilogues'), CONTROL]
METHODS += [(recipe, kernels) for recipe in RECIPES for kernels in ('separate', 'fused')]


@dataclasses.dataclass(frozen=True)
class Layer:
  size: str
  tokens: int
  low_rank: bool

  @property
  def title(self) -> str:
    return f'{self.size} {"low rank" if self.low_rank else "full rank"}'

  @property
  def entries(self) -> int:
    """Of an F-wide tensor: T F."""
    return self.tokens * SIZES[self.size][1]

  @property
  def inner(self) -> int:
    """K, the other width of the core's products."""
    return SIZES[self.size][2 if self.low_rank else 0]

  @property
  def fits(self) -> bool:
    """Whether one kernel can go from s to t."""
    return self.low_rank and self.inner <= LARGEST_FUSED


FULL_RANK = {  # the names of the same products
  'h = s B1': 'h = x W1',
  't = z A2': 'out = z W2',
  'dz = dt A2^T': 'dz = g W2^T',
  'ds = dh B1^T': 'dx = dh W1^T',
  'dA2 = z^T dt': 'dW2 = z^T g',
  'dB1 = s^T dh': 'dW1 = x^T dh',
}


def product(layer: Layer, name: str, wide: float, sparse: float = 0.0) -> Op:
  """A product of the core; any of T, F and K is contracted.

  2 T F K FLOPs, the share `sparse` of them at the sparse rate; wide T F + 2 (T K + F K)
  bytes, `wide` being what is moved per entry of T x F.
  """
  T, F, K = layer.tokens, SIZES[layer.size][1], layer.inner
  flops = 2.0 * T * F * K
  moved = wide * T * F + DENSE * (T * K + F * K)
  name = name if layer.low_rank else FULL_RANK.get(name, name)
  return Op(name, moved, (1 - sparse) * flops, sparse * flops)


def outer(layer: Layer, name: str) -> list[Op]:
  """A product of x or out in a low-rank layer: 2 T D R FLOPs, 2 (T D + T R + D R) bytes."""
  if not layer.low_rank:
    return []
  (D, _, R), T = SIZES[layer.size], layer.tokens
  return [Op(name, DENSE * (T * D + T * R + D * R), 2.0 * T * D * R)]


def feed_forward(layer: Layer, wide: float, sparse: float) -> Op:
  """From s to t in one kernel: 4 T F R FLOPs; wide T F + 2 (2 T R + 2 F R) bytes.

  Half of the FLOPs are those of t = z A2; `wide` is 0 unless z is saved.
  """
  up = product(layer, '', wide)
  down = product(layer, '', 0.0, sparse)
  flops = up.dense_flops + down.dense_flops
  return Op('feed_forward', up.bytes + down.bytes, flops, down.sparse_flops)


def forward(layer: Layer, method: tuple[str, str], training: bool) -> list[Op]:
  """The ops from x to out, and what the pass back needs of z if `training`."""
  recipe, kernels = method
  wide, sparse = (DENSE, 0.0) if recipe == 'dense' else (PACKED, 1.0)
  written = 2 * wide if training and recipe == 'transposable' else wide
  if kernels == 'fused' and layer.fits:
    core = [feed_forward(layer, wide if training else 0.0, sparse)]
  else:
    name, up = 'relu2' if recipe == 'dense' else 'compress', 'h = s B1'
    if kernels == 'separate':
      core = [product(layer, up, DENSE), Op(name, (DENSE + written) * layer.entries)]
    else:
      core = [product(layer, f'up_{name}', written)]
    core.append(product(layer, 't = z A2', wide, sparse))
  return outer(layer, 's = x A1') + core + outer(layer, 'out = t B2')


def back(method: tuple[str, str]) -> tuple[float, float, float]:
  """What the gradient of relu^2 writes, what a weight gradient reads, its sparse share.

  Written: in `exact` the values of dh, whose metadata is z's (and, separate, dense z and
  dh); in `split` those, and z and dh for the weights; in `transposable` dh along features,
  and its values along tokens, whose metadata is that of z'.
  """
  return {
    'dense': (DENSE, DENSE, 0.0),
    'exact': (VALUES, PACKED, 0.0),
    'split': (VALUES + 2 * SPLIT, SPLIT, 1 - DENSE_SHARE),
    'transposable': (PACKED + VALUES, PACKED, 1.0),
    ('exact', 'separate'): (VALUES + 2 * DENSE, DENSE, 0.0),
  }[method if method == ('exact', 'separate') else method[0]]


def gated_backward(layer: Layer, method: tuple[str, str]) -> list[Op]:
  """dz, then dh = 2 sqrt(z) dz: reads the saved z, writes dh. Fused, dz stays inside."""
  recipe, kernels = method
  moved = (DENSE if recipe == 'dense' else PACKED) + back(method)[0]
  if kernels == 'separate':
    gradient = Op('gradient of relu2', (DENSE + moved) * layer.entries)
    return [product(layer, 'dz = dt A2^T', DENSE), gradient]
  return [product(layer, 'gated_backward', moved)]


def weight_gradients(layer: Layer, method: tuple[str, str]) -> list[Op]:
  """dA2 = z^T dt and dB1 = s^T dh, which contract tokens."""
  _, wide, sparse = back(method)
  return [product(layer, name, wide, sparse) for name in ('dA2 = z^T dt', 'dB1 = s^T dh')]


def backward(layer: Layer, method: tuple[str, str]) -> list[Op]:
  """The ops from the gradient g of out to those of x and of all weights."""
  wide, sparse = (DENSE, 0.0) if method[0] == 'dense' else (PACKED, 1.0)
  return [
    *outer(layer, 'dt = g B2^T'),
    *outer(layer, 'dB2 = t^T g'),
    *gated_backward(layer, method),
    product(layer, 'ds = dh B1^T', wide, sparse),
    *weight_gradients(layer, method),
    *outer(layer, 'dx = ds A1^T'),
    *outer(layer, 'dA1 = x^T ds'),
  ]


def ops(layer: Layer, method: tuple[str, str], training: bool) -> list[Op]:
  """Forward and backward, or forward alone with nothing saved."""
  return forward(layer, method, training) + (backward(layer, method) if training else [])


def comparisons(layer: Layer) -> list[tuple[str, list[Op], list[Op], list[Op]]]:
  """(name, its ops, those it replaces, its equal without pruning) for each kernel.

  Replaced are the separate products and passes; of a sparse product, the dense one.
  """
  sweep = lambda *wide: [Op('', sum(wide) * layer.entries)]
  one, both = sweep(DENSE, PACKED), sweep(DENSE, PACKED, PACKED)
  up = lambda wide: [product(layer, '', wide)]
  t, dense = [product(layer, 't = z A2', PACKED, 1.0)], up(DENSE)
  whole = lambda *given: [feed_forward(layer, *given)] if layer.fits else []
  rows = [
    ('compress, one way', one, [], sweep(DENSE, DENSE)),
    ('compress, both ways in one read', both, 2 * one, sweep(DENSE, DENSE)),
    (f'matmul, {t[0].name}', t, dense, dense),
    ('up_compress', up(PACKED), dense + one, dense),
    ('up_compress, both ways', up(2 * PACKED), dense + both, dense),
    ('feed_forward', whole(0.0, 1.0), dense + one + t, whole(0.0, 0.0)),
    ('feed_forward that saves z', whole(PACKED, 1.0), dense + one + t, whole(DENSE, 0.0)),
  ]
  for recipe in RECIPES:
    fused, separate = (gated_backward(layer, (recipe, x)) for x in ('fused', 'separate'))
    control = gated_backward(layer, CONTROL)
    rows.append((f'gated_backward, {recipe}', fused, separate, control))
  for recipe in RECIPES:
    fused, control = (weight_gradients(layer, m) for m in ((recipe, 'fused'), CONTROL))
    rows.append((f'weight gradients, {recipe}', fused, control, control))
  return rows


def ratio(machine: Machine, ours: list[Op], theirs: list[Op]) -> str:
  """How many times as fast, or a dash where there is nothing to compare."""
  if not ours or not theirs:
    return '-'
  return f'{machine.floor(theirs) / machine.floor(ours):.2f}'


def markdown(header: list[str], rows: list[list[str]]) -> str:
  lines = [header, ['---'] + ['---:'] * (len(header) - 1), *rows]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def method_name(method: tuple[str, str]) -> str:
  return 'control' if method == CONTROL else ', '.join(method)


def op_table(layer: Layer, method: tuple[str, str], machine: Machine) -> str:
  """Every op of one method, and sums: forward, backward, both."""
  rows = []
  for op in ops(layer, method, training=True):
    times = machine.compute(op), machine.memory(op), machine.floor([op])
    work = (op.dense_flops + op.sparse_flops) / 1e9, op.bytes / 1e6
    rows.append([op.name, *(f'{x:.1f}' for x in work + times)])
  for name, part in (
    ('forward', forward(layer, method, training=True)),
    ('backward', backward(layer, method)),
    ('total', ops(layer, method, training=True)),
    ('forward, nothing saved', ops(layer, method, training=False)),
  ):
    rows.append([name, *4 * [''], f'{machine.floor(part):.1f}'])
  header = ['op', 'GFLOP', 'MB', 'compute us', 'memory us', 'floor us']
  return f'{layer.title}: {method_name(method)}\n\n{markdown(header, rows)}'


def kernel_table(layers: list[Layer], machine: Machine) -> str:
  """Per kernel and layer: floor, gain over what it replaces / over the same unpruned."""
  rows = []
  for same in zip(*map(comparisons, layers)):
    rows.append([same[0][0]])
    for _, ours, replaced, unpruned in same:
      gains = (ratio(machine, ours, theirs) for theirs in (replaced, unpruned))
      rows[-1].append(f'{machine.floor(ours):.0f}: {" / ".join(gains)}' if ours else '-')
  return markdown(['kernel', *(layer.title for layer in layers)], rows)


def time_table(layers: list[Layer], machine: Machine, training: bool) -> str:
  """Microseconds of every method, forward alone or forward and backward."""
  methods = METHODS if training else METHODS[:5]  # forward alone the recipes are one
  cells = lambda x: [f'{machine.floor(ops(x, m, training)):.0f}' for m in methods]
  rows = [[layer.title, *cells(layer)] for layer in layers]
  names = [method_name(m).replace('exact', 'exact' if training else '2:4') for m in methods]
  return markdown(['us', *names], rows)


def short_table(layers: list[Layer], machine: Machine) -> str:
  """What matters: microseconds without 2:4 and with it, and the gain over the control."""
  exact, at = ('exact', 'fused'), sorted({*GAINS, machine.sparse_gain})
  header = ['us', 'dense, separate', 'control', '2:4, fused', *(f'gain {g:g}' for g in at)]
  rows = []
  for layer, training in itertools.product(layers, (False, True)):
    passes = 'forward and backward' if training else 'forward'
    times = [ops(layer, method, training) for method in (METHODS[0], CONTROL, exact)]
    rows.append([f'{layer.title}, {passes}', *(f'{machine.floor(x):.0f}' for x in times)])
    for gain in at:
      changed = dataclasses.replace(machine, sparse_gain=gain)
      rows[-1].append(ratio(changed, times[2], times[1]))
  return markdown(header, rows)


def gain_table(layers: list[Layer], machine: Machine) -> str:
  """Of fused 2:4 over the control: forward; forward and backward by recipe."""
  gains = sorted({*GAINS, machine.sparse_gain})
  rows = []
  for layer in layers:
    rows.append([layer.title])
    for gain in gains:
      at = dataclasses.replace(machine, sparse_gain=gain)
      first, *rest = (
        ratio(at, ops(layer, (recipe, 'fused'), training), ops(layer, CONTROL, training))
        for recipe, training in [('exact', False), *((r, True) for r in RECIPES)]
      )
      rows[-1].append(f'{first}; {" / ".join(rest)}')
  return markdown(['layer', *(f'sparse gain {gain:g}' for gain in gains)], rows)


def summary(layers: list[Layer], machine: Machine) -> str:
  """Markdown tables of several layers."""
  kinds = [[x for x in layers if x.low_rank == low_rank] for low_rank in (True, False)]
  parts = [
    f'Floor times, {layers[0].tokens} tokens, at {machine.matmul_tflops:g} TFLOP/s and '
    f'{machine.bandwidth_tb:g} TB/s (given, not measured here); sparse gain '
    f'{machine.sparse_gain:g} unless said otherwise.',
    'In short, 2:4 by the exact recipe, and its gain over the control by sparse gain:',
    short_table(layers, machine),
    'Forward, nothing saved:',
    time_table(layers, machine, training=False),
    'Forward and backward:',
    time_table(layers, machine, training=True),
    'Gain of the fused kernels over the same without pruning: forward; forward and '
    f'backward {" / ".join(RECIPES)}:',
    gain_table(layers, machine),
    'Kernels: floor in us: gain over what it replaces / over the same without pruning:',
    *(kernel_table(kind, machine) for kind in kinds if kind),
    'Clocks of a step of K = 128, and bounds of the sparse gain:',
    markdown(*bounds()),
  ]
  return '\n\n'.join(parts)


def _number(text: str, most: float = 1e6) -> float:
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not 0 < value <= most:
    raise argparse.ArgumentTypeError(f'{text!r}: must be above 0 and at most {most:g}')
  return value


def _tokens(text: str) -> int:
  if not text.isdecimal() or not int(text) or int(text) % 4:
    raise argparse.ArgumentTypeError(f'{text!r}: must be a multiple of 4 above 0')
  return int(text)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    'python -m pallas_kernels.roofline', description=__doc__, allow_abbrev=False
  )
  parser.formatter_class = argparse.RawDescriptionHelpFormatter
  add = parser.add_argument
  which = parser.add_mutually_exclusive_group()
  which.add_argument('--size', choices=SIZES, default='1b', help='which model (1b)')
  which.add_argument('--all', action='store_true', help='the summary of all sizes')
  rank = parser.add_mutually_exclusive_group()
  rank.add_argument('--low_rank', action='store_true', help='only the low-rank layer')
  rank.add_argument('--full_rank', action='store_true', help='only the full-rank layer')
  add('--tokens', type=_tokens, default=16384, help='T (16384)')
  add('--device', choices=PEAKS, default='h200', help='whose P and W (h200)')
  add('--matmul_tflops', type=_number, help='P, dense bf16, instead')
  add('--bandwidth_tb', type=_number, help='W, of a copy, in TB/s, instead')
  gain = functools.partial(_number, most=2)
  add('--sparse_gain', type=gain, default=2.0, help='g, 2:4 over dense (2.0, the ideal)')
  return parser


def main(arguments: list[str] | None = None) -> None:
  args = _parser().parse_args(arguments)
  tflops, bandwidth = PEAKS[args.device]
  tflops, bandwidth = args.matmul_tflops or tflops, args.bandwidth_tb or bandwidth
  machine = Machine(tflops, bandwidth, args.sparse_gain)
  kinds = [True] * (not args.full_rank) + [False] * (not args.low_rank)
  sizes = SIZES if args.all else [args.size]
  layers = [Layer(size, args.tokens, kind) for kind in kinds for size in sizes]
  tables = [] if args.all else [op_table(x, m, machine) for x in layers for m in METHODS]
  print('\n\n'.join([*tables, summary(layers, machine)]))


if __name__ == '__main__':
  main()
