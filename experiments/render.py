"""Tables and figures from the record of runs; nothing is trained.

  python -m experiments.render [NAME ...]

Writes experiments/results/tables/NAME.md, .json (which runs each row has), a PNG for every
scale that has been run, and experiments/results/RESULTS.md, the list of all tables; for a
FILE.py the same in results/ beside it.
"""

from elas_jax.common.errors import UserError
from elas_jax.config.cli import Parser, run_command
from elas_jax.tables.render import render, write_list
from experiments.papers import (
  RESULTS,
  about,
  failures_of,
  name_on_page,
  names,
  results_of,
  table_of,
)


def main(arguments: list[str] | None = None) -> None:
  said = 'Render tables and figures from the record of runs; nothing is trained.'
  parser = Parser(prog='python -m experiments.render', description=said)
  parser.add_argument('names', nargs='*', metavar='NAME', help='of a table; default: all')
  default = f'{RESULTS}; of a FILE.py results/ beside it'
  parser.add_place('--results', help=f'folder; default: {default}')
  options = parser.parse_args(arguments)
  tables = {name: table_of(name) for name in options.names or names()}
  places = {name: options.results or results_of(name) for name in tables}
  for results in places.values():
    if not (results / 'runs.jsonl').exists():
      raise UserError(f'--results={results}: has no runs.jsonl, the record of runs')
  for name, table in tables.items():
    with failures_of(name):
      found = render(name_on_page(name), table, places[name])
    for section in found:
      done, known = section.done
      print(f'{name}, {section.scale}: {done} of {known} runs', flush=True)
    if not found:
      print(f'{name}: no run is recorded', flush=True)
  for results in dict.fromkeys(places.values()):
    write_list(results, about(results))
    print(f'written to {results}/tables and RESULTS.md')


if __name__ == '__main__':
  run_command(main)
