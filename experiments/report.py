"""A site of all results, to be opened in a browser; nothing is trained.

  python -m experiments.report

Writes build/report/index.html and a page for every table and measurement, without a server
or a network: the folder can be sent to somebody or put anywhere.
"""

from elas_jax.catalogue import SYSTEMS, rows
from elas_jax.config.cli import Parser, run_command
from elas_jax.tables.site import write_site
from elas_jax.tables.site.index_page import Catalogue
from experiments.papers import RESULTS, names, table_of

BENCHMARKS, OUTPUT = 'benchmarks/results', 'build/report'


def main(arguments: list[str] | None = None) -> None:
  about = 'Render a site of all results; nothing is trained.'
  parser = Parser(prog='python -m experiments.report', description=about)
  for flag, default in (
    ('--results', RESULTS),
    ('--benchmarks', BENCHMARKS),
    ('--output', OUTPUT),
  ):
    parser.add_place(flag, default=str(default), help=f'folder; default: {default}')
  options = parser.parse_args(arguments)
  tables = {name: table_of(name) for name in names()}
  places = (options.results, options.benchmarks, options.output)
  site = write_site(tables, *places, Catalogue(SYSTEMS, rows()))
  size = f'{len(site.names)} files, {site.size / 1e6:.2f} MB'
  print(f'{size}; open {options.output.resolve() / "index.html"}')


if __name__ == '__main__':
  run_command(main)
