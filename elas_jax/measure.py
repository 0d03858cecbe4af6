"""Measures of a run: what its parameters and activations are like, by value and layer.

  python -m elas_jax.measure --workdir=DIR --measures=activations,spectrum

prints a table for the newest checkpoint and writes DIR/measures.json and, for each measure,
DIR/plots/measure_NAME.png. They are those of eval.measures, on the same rows of the
validation split as in training. A measure's fields are flags as well,
--measures.NAME.FIELD=VALUE. A measure whose values follow a curve in training has it fitted
to those of metrics.jsonl, which is printed and plotted in DIR/plots/fit_NAME_VALUE.png.
Where a file cannot be written, the table is printed all the same, and the command ends with
an error.
"""

import dataclasses
import pathlib
from typing import Any

import jax
from ml_collections import ConfigDict

from elas_jax.common.errors import UserError
from elas_jax.common.limits import quoted
from elas_jax.common.memory import check_memory, tree_bytes
from elas_jax.common.places import write_text
from elas_jax.config.cli import Parser, integer, run_command
from elas_jax.config.config import Config, to_tree
from elas_jax.config.help import first_line
from elas_jax.config.overrides import apply
from elas_jax.config.parsing import parse
from elas_jax.config.schema import tree
from elas_jax.run import workdir as workdirs
from elas_jax.run.fits import Fit, fits
from elas_jax.run.measures import UNITS, Measures, Values, lacking
from elas_jax.run.memory import output_bytes
from elas_jax.run.metrics import describe_run, strict_json
from elas_jax.run.plots import plot_fits, plot_measures
from elas_jax.systems.kinds import name_of
from elas_jax.systems.measures import MEASURES

COLUMNS = 8  # layers that a line of the table has room for


def main(arguments: list[str] | None = None) -> None:
  parser = _parser()
  options, fields = parser.parse_known_args(arguments)
  unknown = [flag for flag in fields if not flag.startswith('--measures.')]
  if unknown:
    raise UserError(f'{unknown[0]}: no such flag; --help shows the flags')
  if options.measures is not None:
    fields = [f'--measures={options.measures}', *fields]
  alone = {'eval.batch_size': jax.device_count()}  # the run's batches restrict nothing here
  run = workdirs.open_run(options.workdir, options.step, alone)
  config = _asked(run.config, fields)
  notes = lacking(config)
  if notes and (fields or len(notes) == len(config.eval.measures)):
    raise UserError(notes[0].replace('eval.measures', '--measures', 1))
  for note in notes:
    print(note, flush=True)
  of_run = ('validation',)
  data = run.prepared(of_run, options.accept_changed)
  measures = Measures(config, data.validation, run.mesh, options.units)
  rows = len(measures.batch['valid'])
  needed = {
    'parameters': tree_bytes(run.variables),
    'outputs': output_bytes(config, run.mesh, rows),
  }
  check_memory(f'--units={options.units}', needed)
  with jax.set_mesh(run.mesh):
    values = measures.values(config, run.variables)
  print(table(values), flush=True)
  if change := run.past.change(data, of_run):
    print(f'not on the data of the run: {change}', flush=True)
  curves, notes = fits(options.workdir, config.eval.measures)
  for line in [*notes, *(fit.described() for fit in curves)]:
    print(line, flush=True)
  result = {
    'step': run.step,
    'units': int(measures.batch['valid'].sum()),
    'run': describe_run(),
    'measures': {name_of(MEASURES, one): tree(one) for one in config.eval.measures},
    'values': {
      name: {value: x.tolist() for value, x in of.items()} for name, of in values.items()
    },
  } | ({'changed_data': change} if change else {})
  if curves:
    result['fits'] = {fit.name: fit.as_json() for fit in curves}
  _write(options.workdir, result, values, curves)


def _parser() -> Parser:
  kinds = ' '.join(f'{name}: {first_line(kind)}' for name, kind in MEASURES.items())
  parser = Parser(
    prog='python -m elas_jax.measure',
    description='Measure a checkpoint of a run.',
    epilog=f'Measures. {kinds} Their fields are flags too, --measures.NAME.FIELD=VALUE; '
    'python -m elas_jax.train --help=eval.measures.NAME lists them.',
  )
  parser.add_place('--workdir', required=True, help='folder of the run')
  parser.add_argument(
    '--measures', help="names, joined by commas; default: the run's eval.measures"
  )
  parser.add_argument('--step', type=integer(), help='checkpoint; default: the newest')
  parser.add_argument(
    '--units',
    type=integer(1),
    default=UNITS,
    help='validation tokens (of rows: examples) that are looked at at once, about; '
    f'default: {UNITS}, as in training',
  )
  parser.add_argument(
    '--accept_changed',
    action='store_true',
    help="measure on other validation data than the run's",
  )
  return parser


def _asked(config: Config, fields: list[str]) -> Config:
  """The config with these measures: the flags are a section of it, and errors say so."""
  section = ConfigDict(to_tree(config))
  del section['version']
  try:
    apply(section, [flag.replace('--', '--config.eval.', 1) for flag in fields])
    measures = parse(section).eval.measures
  except UserError as error:
    text = str(error).replace('--config.eval.', '--')
    raise UserError(text.replace('eval.measures', '--measures')) from error
  if not measures:
    raise UserError(f'--measures: missing; must be some of {quoted(sorted(MEASURES))}')
  evaluation = dataclasses.replace(config.eval, measures=measures)
  return dataclasses.replace(config, eval=evaluation)


def table(values: Values) -> str:
  """Of each measure's values the mean and, of stacked layers, the first of them."""
  rows = [(measure, name, x) for measure, of in values.items() for name, x in of.items()]
  width = max(len(f'{measure}/{name}') for measure, name, _ in rows)
  layers = max((len(x) for *_, x in rows if x.ndim), default=0)
  shown = range(min(layers, COLUMNS))
  number = lambda x: f'{x:>10.4g}'
  head = ''.join(f'{f"layer {layer}":>10s}' for layer in shown)
  lines = [f'{"":{width}s}{"mean":>10s}{head}{"  ..." if layers > COLUMNS else ""}']
  for measure, name, x in rows:
    own = ''.join(map(number, x[:COLUMNS])) if x.ndim else ''
    lines.append(f'{f"{measure}/{name}":{width}s}{number(x.mean())}{own}')
  return '\n'.join(lines)


def _write(
  workdir: pathlib.Path, result: dict[str, Any], values: Values, curves: list[Fit]
) -> None:
  path = workdir / 'measures.json'
  try:
    write_text(path, strict_json(result, indent=2) + '\n')
    print(f'written to {path}', flush=True)
    plotted = plot_measures(workdir, values, result['step'])
    for path in [*plotted, *plot_fits(workdir, curves)]:
      print(f'plotted in {path}')
  except BrokenPipeError:  # whoever reads what is printed has gone
    raise
  except OSError as error:
    named = error.filename or path
    raise UserError(f'{named}: not written: {error.strerror}') from error


if __name__ == '__main__':
  run_command(main)
