"""Evaluation: loss and what else the task measures, on the validation split.

  python -m elas_jax.evaluate --workdir=DIR

prints the newest checkpoint's and writes DIR/evaluation.json; null there is a number that
is not finite. Where that file cannot be written, the numbers are printed all the same, and
the command ends with an error.
"""

import pathlib

from elas_jax.common.errors import UserError
from elas_jax.common.places import write_text
from elas_jax.config.cli import Parser, integer, run_command
from elas_jax.run import workdir as workdirs
from elas_jax.run.evaluation import evaluate
from elas_jax.run.metrics import strict_json


def main(arguments: list[str] | None = None) -> None:
  parser = Parser(
    prog='python -m elas_jax.evaluate', description='Evaluate a checkpoint of a run.'
  )
  parser.add_place('--workdir', required=True, help='folder of the run')
  parser.add_argument('--step', type=integer(), help='checkpoint; default: the newest')
  parser.add_argument(
    '--tokens', type=integer(), help='validation tokens, 0 = the whole split; default: all'
  )
  parser.add_argument('--batch_size', type=integer(1), help="default: the run's")
  parser.add_argument(
    '--accept_changed',
    action='store_true',
    help="evaluate on other validation data than the run's",
  )
  options = parser.parse_args(arguments)
  run = workdirs.open_run(
    options.workdir,
    options.step,
    {'eval.units': options.tokens or 0, 'eval.batch_size': options.batch_size},
  )
  of_run = ('validation',)
  data = run.prepared(of_run, options.accept_changed)
  result = {'step': run.step}
  result |= evaluate(run.config, run.variables, data.validation, run.mesh)
  for name, value in result.items():
    print(f'{name:28s} {value:,.6g}', flush=True)
  change = run.past.change(data, of_run)
  if change:
    print(f'not on the data of the run: {change}', flush=True)
  written = result | ({'changed_data': change} if change else {})
  path = pathlib.Path(options.workdir) / 'evaluation.json'
  try:
    write_text(path, strict_json(written, indent=2) + '\n')
  except OSError as error:
    raise UserError(f'{path}: not written: {error.strerror}') from error
  print(f'written to {path}')


if __name__ == '__main__':
  run_command(main)
