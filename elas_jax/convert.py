"""Convert a run: its model made into another one, to train on from.

  python -m elas_jax.convert --workdir=runs/lora --converter=merge --output=runs/dense
  python -m elas_jax.convert --workdir=runs/fit --converter=extend_grid \
      --converter.grid=20 --output=runs/finer

Prints what changed and writes a workdir at step 0. --help lists the converters, --help=NAME
the fields of one.
"""

import jax

from elas_jax.common.places import check_new_folder
from elas_jax.config.checks import check
from elas_jax.config.cli import Parser, integer, run_command
from elas_jax.config.config import after
from elas_jax.config.conversion import converter_of, told
from elas_jax.config.help import help_on
from elas_jax.run.conversion import (
  Source,
  changes,
  check_finite,
  check_variables,
  flags,
  write_run,
)
from elas_jax.run.workdir import open_run


def main(arguments: list[str] | None = None) -> None:
  parser = Parser(
    prog='python -m elas_jax.convert',
    description=__doc__.splitlines()[0],
    epilog='The fields of a converter are flags: --converter.FIELD=VALUE.',
    add_help=False,
  )
  add = parser.add_argument
  parser.add_place('--workdir', help='folder of the run')
  parser.add_place('--output', help='folder of the result')
  add('--converter', metavar='NAME', help='one of those below')
  add('--step', type=integer(), help='checkpoint; default: the newest')
  add('--accept_changed', action='store_true', help="look at other data than the run's")
  add('--help', nargs='?', const='', metavar='NAME', help='this, or fields of a converter')
  options, fields = parser.parse_known_args(arguments)
  if options.help is not None:
    if not options.help:
      print(parser.format_help())
    inside = f'.{options.help}' if options.help else ''
    print(help_on(f'converter{inside}'))
    return
  for name in ('workdir', 'converter', 'output'):
    if getattr(options, name) is None:
      parser.error(f'--{name}: missing; --help shows the flags')
  tree = told([f'--converter={options.converter}', *fields])
  check_new_folder('--output', options.output)
  of_any_devices = {'eval.batch_size': jax.device_count()}
  run = open_run(options.workdir, options.step, of_any_devices)
  converter = converter_of(tree, run.past.parsed.train.steps)
  converter.check('converter', run.past.parsed)
  source = Source(run, options.accept_changed)
  config, variables = converter.convert(source.given)
  if not getattr(converter, 'rewind', False):
    config = after(config, run.step)
  check(config)
  check_variables(config, variables, options.converter)
  check_finite(variables, options.converter)
  if config.traits.reference:
    source.said.append(
      'the parameters that the run was compared with are left behind: trained on, the new '
      'one is compared with its own start'
    )
  compared = source.comparison(config, variables, options.converter)
  for line in (*source.said, *changes(source.config, config), compared):
    print(line)
  made = {'workdir': str(options.workdir), 'step': run.step} | tree.to_dict()
  write_run(options.output, config, variables, source.saved_data(), made)
  changed = flags(source.config, config)
  print(f'to train on: python -m elas_jax.train --config=AS_BEFORE {changed}')
  # What begins at its start again is one run with what it came from.
  restored = f', or --config.restore={options.output}'
  anew = getattr(converter, 'rewind', False)
  print(f'  with --workdir={options.output}{"" if anew else restored}')


if __name__ == '__main__':
  run_command(main)
