"""Tables and figures from the record of runs; nothing is trained.

  python -m experiments.render [NAME ...]

Writes experiments/results/tables/NAME.md, .json (which runs each row has), a PNG for every
scale that has been run, and experiments/results/RESULTS.md, the list of all tables.
"""

import pathlib

from elas_jax.common.errors import UserError
from elas_jax.config.cli import Parser, run_command
from elas_jax.tables.render import render, write_list
from experiments.papers import ABOUT, RESULTS, names, table_of


def main(arguments: list[str] | None = None) -> None:
  about = 'Render tables and figures from the record of runs; nothing is trained.'
  parser = Parser(prog='python -m experiments.render', description=about)
  parser.add_argument('names', nargs='*', metavar='NAME', help='of a table; default: all')
  parser.add_place('--results', default=str(RESULTS), help=f'folder; default: {RESULTS}')
  options = parser.parse_args(arguments)
  tables = {name: table_of(name) for name in options.names or names()}
  if not (options.results / 'runs.jsonl').exists():
    raise UserError(f'--results={options.results}: has no runs.jsonl, the record of runs')
  for name, table in tables.items():
    found = render(pathlib.Path(name).name, table, options.results)
    for section in found:
      done, known = section.done
      print(f'{name}, {section.scale}: {done} of {known} runs', flush=True)
    if not found:
      print(f'{name}: no run is recorded', flush=True)
  write_list(options.results, ABOUT)
  print(f'written to {options.results}/tables and RESULTS.md')


if __name__ == '__main__':
  run_command(main)
