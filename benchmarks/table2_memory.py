"""Table 2 of ELAS (arXiv 2605.03667): memory of the feed-forward activations, measured.

  python -m benchmarks.table2_memory [--sizes=60m,130m,350m,1b] [--batch=16] [--no_step]

Writes benchmarks/results/table2_memory/NAME.json, .md and .png; started again with the
same code and batch, it keeps the cells that are there. Nothing is allocated: shapes are
read from traced and compiled programs.

  layer  bytes that one feed-forward layer keeps between forward and backward pass, read
         from its traced vjp: all that it returns besides the output, without parameters
  step   temporary bytes of the compiled training step of the whole model (AdamW, no dense
         warm-up), as configured and with model.remat='full'

The last line is the largest ratio, over the sizes, of the F-wide bytes of ELAS with the
exact backward pass to those of the same layer without 2:4. Exit code 1 if above 0.30.

Hardware: CPU; seconds for the layers, some minutes a size for the steps.
Expected: ratios of 0.282 to 0.283, since 9/16 of one F-wide tensor, and the padding of the
metadata, stand for two.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import pathlib
import re
import sys
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, Var

from configs import c4
from elas_jax.common.errors import UserError
from elas_jax.common.limits import LARGEST
from elas_jax.common.places import write_text
from elas_jax.config.cli import Parser, integer, run_command
from elas_jax.config.config import Config, ModelConfig
from elas_jax.config.overrides import choose, set_field
from elas_jax.config.parsing import parse
from elas_jax.run.dry_run import step_bytes
from elas_jax.run.metrics import describe_run, strict_json
from elas_jax.run.sharding import make_mesh
from elas_jax.run.state import abstract_state
from elas_jax.run.step import jit_train_step

# row -> (METHOD of configs/methods.py, rule, backward pass). elas_adamw, not elas: with
# the optimiser of the others, the steps differ in the feed-forward alone.
ROWS = {
  'dense SwiGLU': ('full', '', ''),
  'low-rank SwiGLU': ('low_rank', '', ''),
  'low-rank relu2': ('low_rank_relu2', '', ''),
  'ELAS exact': ('elas_adamw', 'top2', 'exact'),
  'ELAS transposable': ('elas_adamw', 'top2', 'transposable'),
  'ELAS split': ('elas_adamw', 'top2', 'split'),
  'ELAS straight_through': ('elas_adamw', 'top2', 'straight_through'),
  'ELAS straight_through_dense': ('elas_adamw', 'top2', 'straight_through_dense'),
}
BASE, PROMISE = 'low-rank relu2', 'ELAS exact'
LARGEST_RATIO = 0.30
PUBLISHED = 0.56  # ELAS / LORO in all rows of the paper's table, from a summary of it
SECONDARY = "from a third party's summary of the source"
NOTE = """\
Measured at {batch} sequences of {length} tokens, bf16. F-wide: activations of about F
entries a token, packed values, and metadata with its padding; rest: the layer's input and
what is R wide. Both ratios are to "{base}" of the same size, the first of F-wide bytes,
the second of all. The paper is said to give {published} for ELAS to LORO [S: {secondary}];
the same at every batch size, so it looks analytic, not measured, and which tensors count
is not known. The saving starts after the dense warm-up: a step of the warm-up keeps as
much as "{base}", so a run whose warm-up is not 0 needs that memory once. Steps are as
compiled for this machine's {device}: on a CPU the compiler computes much of bf16 in
float32, and logits and attention scores are in there too, so those bytes are no measure
of another device."""


def config_of(size: str, row: str, batch: int, length: int) -> Config:
  method, rule, backward = ROWS[row]
  config = c4.get_config(f'{size},{method}')
  if rule:
    set_field(config, 'model.feed_forward.dense_steps', 0)
    choose(config, 'model.feed_forward.recipe', rule, backward=backward)
  config.data.batch_size, config.data.sequence_length = batch, length
  return parse(config)


def residual_bytes(model: ModelConfig, batch: int, length: int) -> dict[str, int]:
  """Bytes that the feed-forward keeps for its backward pass: {'wide', 'rest'}."""
  layer = model.feed_forward.make(model.parts, name=None)
  dtype = jnp.dtype(model.compute_dtype)
  x_BxLxD = jax.ShapeDtypeStruct((batch, length, model.width), dtype)
  variables = jax.eval_shape(layer.init, jax.random.key(0), x_BxLxD)
  # The outputs of this function are y and, as a jax.vjp is a pytree, what it holds.
  forward = lambda variables, x: jax.vjp(layer.apply, variables, x)
  jaxpr = jax.make_jaxpr(forward)(variables, x_BxLxD).jaxpr
  parameters = jaxpr.invars[:-1]
  kept = [x for x in saved_arrays(jaxpr) if x not in parameters]
  narrow = {model.width, getattr(model.linear, 'rank', model.width)}
  if model.feed_forward_width in narrow:
    raise UserError('feed_forward_width equals width or rank: cannot tell them apart')
  size = lambda x: math.prod(x.aval.shape) * x.aval.dtype.itemsize
  is_rest = lambda x: x.aval.shape[-1] in narrow and x.aval.dtype == dtype
  return {
    'wide': sum(size(x) for x in kept if not is_rest(x)),
    'rest': sum(size(x) for x in kept if is_rest(x)),
  }


def saved_arrays(jaxpr: Jaxpr) -> list[Var]:
  """The residuals among the outputs of a traced vjp, each once.

  A reshape holds the bytes of what it reshapes and counts as that.
  """
  made_by = {x: equation for equation in jaxpr.eqns for x in equation.outvars}

  def source(x):
    while x in made_by and made_by[x].primitive.name == 'reshape':
      x = made_by[x].invars[0]
    return x

  return list(dict.fromkeys(source(x) for x in jaxpr.outvars[1:] if isinstance(x, Var)))


def temporary_bytes(config: Config) -> dict[str, int]:
  """Temporary bytes of the compiled step on one device, without and with remat."""
  result = {}
  for name, remat in (('step', config.model.remat), ('step_remat', 'full')):
    model = dataclasses.replace(config.model, remat=remat)
    changed = dataclasses.replace(config, model=model)
    mesh = make_mesh(changed)
    state, step = abstract_state(changed, mesh), jit_train_step(changed, mesh)
    result[name] = step_bytes(changed, mesh, state, step)
  return result


def measure(
  result: dict[str, Any], path: pathlib.Path, options: argparse.Namespace
) -> None:
  """Fills result['cells'][size][row], and writes the file after each."""
  parts = ['layer'] if options.no_step else ['layer', 'step']
  work = [(p, s, row) for p in parts for s in options.sizes.split(',') for row in ROWS]
  for number, (part, size, row) in enumerate(work, 1):
    cell = result['cells'].setdefault(size, {}).setdefault(row, {})
    if ('wide' if part == 'layer' else 'step') in cell:
      continue
    print(f'[{number}/{len(work)}] {part} {size} {row}', file=sys.stderr, flush=True)
    config = config_of(size, row, options.batch, options.length)
    if part == 'layer':
      cell |= residual_bytes(config.model, options.batch, options.length)
    else:
      cell |= temporary_bytes(config)
    write_text(path, strict_json(result, indent=2) + '\n')


def ratios(rows: dict[str, dict[str, int]], row: str) -> tuple[float, float]:
  """Of F-wide and of all kept bytes, to the layer without 2:4."""
  total = lambda cell: cell['wide'] + cell['rest']
  return rows[row]['wide'] / rows[BASE]['wide'], total(rows[row]) / total(rows[BASE])


def worst_ratio(cells: dict[str, Any]) -> float:
  return max(ratios(rows, PROMISE)[0] for rows in cells.values())


def table(result: dict[str, Any]) -> str:
  run = result['run']
  lines = [
    f'Commit {run["commit"]}, {run["time"]}, jax {run["versions"]["jax"]}. Made by '
    '`python -m benchmarks.table2_memory`.',
    '',
    '| size | feed-forward | F-wide MB | rest MB | ratio F-wide | ratio all | step MB '
    '| step MB, remat |',
    '|---|---|---|---|---|---|---|---|',
  ]
  for size, rows in result['cells'].items():
    for row, cell in rows.items():
      wide, everything = ratios(rows, row)
      shown = [f'{cell[name] / 1e6:.2f}' for name in ('wide', 'rest')]
      shown += [f'{wide:.3f}', f'{everything:.3f}']
      steps = (cell.get(name) for name in ('step', 'step_remat'))
      shown += ['' if x is None else f'{x / 1e6:,.0f}' for x in steps]
      lines.append(f'| {size} | {row} | ' + ' | '.join(shown) + ' |')
  note = NOTE.format(
    batch=result['batch'],
    length=result['length'],
    base=BASE,
    published=PUBLISHED,
    secondary=SECONDARY,
    device=run['device'],
  )
  return '\n'.join([*lines, '', note]) + '\n'


def plot(result: dict[str, Any], path: pathlib.Path) -> None:
  """Bars of the kept bytes, F-wide below the rest, one panel a size."""
  import matplotlib

  matplotlib.use('Agg')  # no display needed
  import matplotlib.pyplot as plt

  cells = result['cells']
  figure, panels = plt.subplots(
    1, len(cells), figsize=(3.2 * len(cells) + 2, 4), squeeze=False, layout='constrained'
  )
  for axes, (size, rows) in zip(panels[0], cells.items()):
    names = list(rows)[::-1]
    wide, rest = ([rows[n][kind] / 1e6 for n in names] for kind in ('wide', 'rest'))
    axes.barh(names, wide, label='F-wide')
    axes.barh(names, rest, left=wide, label='rest')
    axes.set(title=size, xlabel='MB kept by one layer')
    axes.grid(alpha=0.3, axis='x')
    if axes is not panels[0][0]:
      axes.set_yticks([])
  panels[0][0].legend(loc='lower right')
  figure.savefig(path, dpi=130)
  plt.close(figure)


def started(path: pathlib.Path, options: argparse.Namespace) -> dict[str, Any]:
  """The result so far, if it is of this code, or an empty one."""
  result = {'run': describe_run(), 'code': code_hash()}
  result |= {'batch': options.batch, 'length': options.length, 'cells': {}}
  if path.exists():
    found = json.loads(path.read_text())
    same = lambda one: (one.get('code'), one['run']['versions'], one['run']['devices'])
    if same(found) == same(result):
      return found
  return result


def code_hash() -> str:
  """Of what is measured: a commit does not tell one modified tree from another."""
  script, digest = pathlib.Path(__file__), hashlib.sha256()
  sources = [script]
  for folder in ('configs', 'elas_jax', 'pallas_kernels'):
    sources += sorted((script.parents[1] / folder).rglob('*.py'))
  for path in sources:
    digest.update(path.read_bytes())
  return digest.hexdigest()


def chosen(arguments: list[str] | None) -> argparse.Namespace:
  parser = Parser(
    prog='python -m benchmarks.table2_memory', description=__doc__.split('\n')[0]
  )
  add = parser.add_argument
  add('--sizes', default='60m,130m,350m,1b', help='of configs/c4.py, with commas')
  add('--batch', type=integer(1), default=16, help='sequences')
  length = integer(1, LARGEST['data.sequence_length'])
  add('--length', type=length, default=256, help='tokens of each')
  add('--no_step', action='store_true', help='layers only, without compiling steps')
  parser.add_place('--output', default='benchmarks/results/table2_memory')
  options = parser.parse_args(arguments)
  if not set(options.sizes.split(',')) <= set(c4.SIZES):
    raise UserError(f'--sizes={options.sizes}: must be of {", ".join(c4.SIZES)}')
  return options


def main(arguments: list[str] | None = None) -> None:
  options = chosen(arguments)
  folder = options.output
  folder.mkdir(parents=True, exist_ok=True)
  device = re.sub(r'[^a-z0-9]+', '_', jax.devices()[0].device_kind.lower())
  path = folder / f'{device}_batch{options.batch}_length{options.length}.json'
  result = started(path, options)
  measure(result, path, options)
  # The file may hold other sizes, in part.
  cells = {size: result['cells'][size] for size in options.sizes.split(',')}
  result = result | {'cells': cells}
  write_text(path.with_suffix('.md'), table(result))
  plot(result, path.with_suffix('.png'))
  print(table(result))
  print(f'written to {path.with_suffix("")}.json, .md and .png')
  worst = worst_ratio(cells)
  print(f'worst exact/dense residual ratio {worst:.4f}')
  sys.exit(int(worst > LARGEST_RATIO))


if __name__ == '__main__':
  run_command(main)
