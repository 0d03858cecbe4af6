"""Quadratic networks: plain training, and ReLinear's two ways to keep them from collapse.

  python -m experiments.run quadratic_table --scale=proxy --workers=2
  python -m experiments.run quadratic_table --scale=paper \
      --config.data.source.data_dir=TFDS_FOLDER

Rows, for each optimiser with its rate and each depth of a stack without normalisation:

  plain      dense layers, Kaiming start
  random     quadratic layers, every branch started as in plain
  gamma_1    quadratic, ReLinear's start, all parameters with one rate
  gradients  the same, quadratic parameters with gamma = 0.01 times the rate
  weights    as gamma_1, quadratic terms shrunk to their start by alpha = 50, or 1 / rate

and, where plain training collapses, gradients by other gamma; on mnist1d two of the
settings. A run has collapsed if it ends below 20 % accuracy (of ten classes, twice chance)
or with a loss that is not finite.
Reproduces: no table, that of ReLinear (arXiv 2110.06081) is not known to us as text. The
paper's scale is its CIFAR-10 recipe, but for the schedule, a cosine here.
Hardware: proxy (digits, mnist1d) about half an hour on a CPU core; paper a GPU, not yet
run.
"""

from collections.abc import Sequence

from elas_jax.config.config import Config
from elas_jax.tables.entries import Entry
from elas_jax.tables.plan import At
from elas_jax.tables.table import RATE, Row, Table
from experiments import networks

COLLAPSED_BELOW = 20.0  # %
MODELS = {
  'plain': ('mlp', {}),
  'random': ('quadratic', {'model.linear.start': 'random'}),
  'gamma_1': ('quadratic', {}),
  'gradients': ('quadratic', {'model.linear.relinear': 'gradients'}),
  'weights': ('quadratic', {'model.linear.relinear': 'weights'}),
}
RELINEAR = ('gradients', 'weights')
FACTORS = {'gradients': 1e-2, 'weights': 50.0}  # of both quadratic branches
DEPTHS = (2, 4, 8)
OPTIMIZERS = (('adamw', 1e-3), ('adamw', 1e-2), ('sgd', 1e-2), ('sgd', 1e-1))
# Gradients by gamma, in the middle of the table.
GAMMAS, GAMMA_DEPTH, GAMMA_OPTIMIZER = (1e-4, 1e-3, 0.1), 8, ('adamw', 1e-2)
# A setting that plain training bears on digits, and one in which it collapses there.
OF_MNIST1D = ((OPTIMIZERS[0], 2), (OPTIMIZERS[1], 8))
MNIST1D_STEPS = 1000
STACK = {'model.norm': 'none', 'model.init': 'he', 'model.use_bias': True}
RESNETS = (20, 32, 44, 56)
# alpha of its weights is not known to us.
PUBLISHED = tuple(name for name in MODELS if name != 'weights')


def rows(at: At) -> list[Row]:
  if at.scale == 'paper':
    return [_resnet(name, layers) for layers in RESNETS for name in PUBLISHED]
  settings = OF_MNIST1D
  if at.size != 'mnist1d':
    settings = [(optimizer, depth) for optimizer in OPTIMIZERS for depth in DEPTHS]
  if at.scale == 'smoke':
    settings = settings[:1]
  result = [_stack(name, depth, of) for of, depth in settings for name in MODELS]
  if at.scale == 'proxy' and at.size != 'mnist1d':
    result += [_stack('gradients', GAMMA_DEPTH, GAMMA_OPTIMIZER, gamma) for gamma in GAMMAS]
  return networks.longer(at, result, MNIST1D_STEPS)


def _stack(
  name: str, depth: int, optimizer: tuple[str, float], gamma: float | None = None
) -> Row:
  kind, rate = optimizer
  method, fields = MODELS[name]
  of_optimizer = {'optimizer': kind, RATE: rate, 'optimizer.weight_decay': 1e-4}
  fields = STACK | {'model.depth': depth} | of_optimizer | fields
  factor = gamma or FACTORS.get(name)
  if name == 'weights':
    factor = min(factor, 1 / rate)
  if factor:
    fields |= {'model.linear.relinear_g': factor, 'model.linear.relinear_b': factor}
  label = f'{name}_{gamma:g}' if gamma else name
  return Row(f'{label}_{setting_name(optimizer)}_depth_{depth}', method, fields)


def setting_name(optimizer: tuple[str, float]) -> str:
  return f'{optimizer[0]}_{optimizer[1]:g}'


def _resnet(name: str, layers: int) -> Row:
  """By the published factor 1e-4; plain training has one rate for all parameters."""
  if name == 'plain':
    return Row(f'plain_resnet{layers}', f'resnet{layers}')
  relinear = name if name in RELINEAR else 'none'
  fields = MODELS[name][1] | {'model.linear.relinear': relinear}
  return Row(f'{name}_resnet{layers}', f'quadratic_resnet{layers}', fields)


def collapsed(entry: Entry) -> tuple[int, int]:
  """(How many runs have collapsed, how many are done)."""
  finished, diverged = entry.of('finished'), entry.of('diverged')
  fallen = [x for x in finished if x.values['accuracy_percent'] < COLLAPSED_BELOW]
  return len(fallen) + len(diverged), len(finished) + len(diverged)


def cells(config: Config, entry: Entry) -> dict[str, str]:
  fallen, done = collapsed(entry)
  ends = [x.values['accuracy_percent'] for x in entry.of('finished')]
  return {
    'collapsed': f'{fallen} of {done}' if done else '-',
    'lowest accuracy, %': f'{min(ends):.2f}' if ends else '-',
  } | networks.flops_cell(config, entry)


def conclude(entries: Sequence[Entry]) -> list[str]:
  """Collapsed runs of each kind, where there are any, setting by setting and in all.

  In all: over the settings in which plain training of the quadratic net, from ReLinear's
  start, has collapsed in every run.
  """
  found = {}
  for entry in entries:
    fallen, done = collapsed(entry)
    name = next((n for n in MODELS if entry.label.startswith(f'{n}_')), '')
    where = f'{entry.label.removeprefix(f"{name}_")} on {entry.size}'
    if done == len(entry.runs):
      found.setdefault(where, {})[name] = fallen, done
  whole = {where: kinds for where, kinds in found.items() if len(kinds) == len(MODELS)}
  always = lambda kinds: kinds['gamma_1'][0] == kinds['gamma_1'][1]
  failing = [where for where, kinds in whole.items() if always(kinds)]
  lines = [_relinear(failing, whole)] if failing else []
  for where, kinds in whole.items():
    if any(fallen for fallen, _ in kinds.values()):
      counts = (f'{n} {kinds[n][0]} of {kinds[n][1]}' for n in MODELS)
      lines.append(f'{where}: collapsed {", ".join(counts)}.')
  return lines


def _relinear(failing: list[str], found: dict[str, dict[str, tuple[int, int]]]) -> str:
  """What ReLinear does where plain training of the quadratic net always collapses."""
  parts = []
  for name in RELINEAR:
    fallen, done = map(sum, zip(*(found[where][name] for where in failing)))
    never = [where for where in failing if not found[where][name][0]]
    spared = f', in none at {", ".join(never)}' if never else ''
    parts.append(f'{name} collapses in {fallen} of {done}{spared}')
  return (
    'Where plain training of the quadratic net (gamma_1) collapses in every run '
    f'({", ".join(failing)}): {"; ".join(parts)}.'
  )


TABLE = Table(
  title='Quadratic networks: plain training and ReLinear',
  rows=rows,
  family=networks.NETWORKS,
  scales=networks.scales(
    networks.IMAGES, proxy=('digits', 'mnist1d'), paper=('cifar10',), steps=300
  ),
  cells=cells,
  first_seed=10,
  conclude=conclude,
  notes=(
    'Accuracy is the mean over the runs that ended with a finite loss, collapsed ones '
    'among them; collapsed counts those below 20 % and those without such an end.',
    'The settings were looked for on digits, in 300 to 400 steps of seeds 0 and 1, which '
    'the table does not use: rates and depths, gamma = 0.01, and alpha, of which 1 and 10 '
    'failed and 50 and 100 did not at depth 8 with AdamW at 1e-2. The two on mnist1d have '
    f'{MNIST1D_STEPS} steps. adamw_0.001 is a rate that plain '
    'training mostly bears: the table shows what a net bears, not that one method is '
    'better at its own best rate.',
    'weights: alpha = 50, so that a step shrinks by rate x alpha, while Adam moves every '
    'entry by up to the rate, and so by 1 / alpha in all; with SGD at 0.1 it is 10, the '
    'largest that does not overshoot. The published update is not known to us.',
    'random: all three branches with the variance of a Kaiming start, so that a layer is '
    'about the square of its input: at depth 8 it overflows before the first step.',
  ),
)
