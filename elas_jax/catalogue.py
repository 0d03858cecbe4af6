"""The catalogue: every system with its paper and a line, from the docstrings.

python -m elas_jax.catalogue
python -m elas_jax.catalogue --format=markdown
"""

import re

from elas_jax.common.errors import UserError
from elas_jax.config.cli import Parser, run_command
from elas_jax.config.help import first_line
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.architectures import ARCHITECTURES
from elas_jax.systems.converters import CONVERTERS
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from elas_jax.systems.kinds import Kinds, room
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.measures import MEASURES
from elas_jax.systems.mixers import MIXERS
from elas_jax.systems.norms import NORMS
from elas_jax.systems.objectives import OBJECTIVES
from elas_jax.systems.optimizers import OPTIMIZERS
from elas_jax.systems.pair_sources import PAIR_SOURCES
from elas_jax.systems.positions import POSITIONS
from elas_jax.systems.preferences import PREFERENCES
from elas_jax.systems.row_sources import ROW_SOURCES
from elas_jax.systems.schedules import SCHEDULES
from elas_jax.systems.sources import SOURCES
from elas_jax.systems.tokenizers import TOKENIZERS
from elas_jax.systems.two_four import RECIPES

# Every dict of systems by the section that names its kinds.
SYSTEMS: dict[str, Kinds] = {
  'model.linear': LINEARS,
  'model.feed_forward': FEED_FORWARDS,
  'model.feed_forward.recipe': RECIPES,
  'model.attention': MIXERS,
  'model.norm': NORMS,
  'model.position': POSITIONS,
  'model.activation': ACTIVATIONS,
  'model.architecture': ARCHITECTURES,
  'train.objectives': OBJECTIVES,
  'train.preference': PREFERENCES,
  'eval.measures': MEASURES,
  'optimizer': OPTIMIZERS,
  'schedule': SCHEDULES,
  'data.source': SOURCES,
  'data.source (rows)': ROW_SOURCES,
  'data.source (pairs)': PAIR_SOURCES,
  'data.tokenizer': TOKENIZERS,
  'converter': CONVERTERS,
}
FORMATS = ('text', 'markdown')


def papers(kind: type) -> str:
  """The arXiv numbers in the docstring of a kind's file."""
  found = re.findall(r'\b\d{4}\.\d{4,5}\b', room(kind).__doc__ or '')
  return ', '.join(dict.fromkeys(found))


def rows() -> list[tuple[str, str, str, str]]:
  """(section, kind, papers, line) of every system."""
  return [
    (section, name, papers(kind), first_line(kind))
    for section, kinds in SYSTEMS.items()
    for name, kind in kinds.items()
  ]


def text() -> str:
  lines, last = [], None
  for section, name, paper, line in rows():
    if section != last:
      lines += ([''] if lines else []) + [section]
      last = section
    lines.append(f'  {name:26s} {paper or "-":24s} {line}')
  return '\n'.join(lines)


def markdown() -> str:
  links = lambda paper: ', '.join(
    f'[{x}](https://arxiv.org/abs/{x})' for x in paper.split(', ') if x
  )
  body = [
    f'| `{section}` | `{name}` | {links(paper)} | {line} |'
    for section, name, paper, line in rows()
  ]
  return '\n'.join(['| section | kind | paper | what |', '|---|---|---|---|', *body])


def main(arguments: list[str] | None = None) -> None:
  parser = Parser(
    prog='python -m elas_jax.catalogue', description='Print every system of this code.'
  )
  parser.add_argument('--format', default='text', help=f'one of {", ".join(FORMATS)}')
  options = parser.parse_args(arguments)
  if options.format not in FORMATS:
    raise UserError(f'--format={options.format}: must be one of {", ".join(FORMATS)}')
  print(markdown() if options.format == 'markdown' else text())


if __name__ == '__main__':
  run_command(main)
