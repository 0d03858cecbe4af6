"""The page of a measurement of time or memory, from its Markdown in benchmarks/results."""

import dataclasses
import functools
import json
import pathlib
import re

from elas_jax.common.errors import UserError
from elas_jax.tables.site.html import Html, badge, join, markdown, page, tag

COMPILED = 'compiled for a GPU, not run'
PARTS = re.compile('<h2>(.*?)</h2>')


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """What one of these files says; `path` is below `root`."""

  root: pathlib.Path
  path: pathlib.Path

  @property
  def name(self) -> str:
    """Of its page."""
    return '_'.join(['benchmark', *self.path.with_suffix('').parts])

  @functools.cached_property
  def _read(self) -> tuple[str, Html]:
    return markdown((self.root / self.path).read_text())

  @property
  def title(self) -> str:
    return self._read[0] or ' '.join(self.path.with_suffix('').parts).replace('_', ' ')

  @functools.cached_property
  def device(self) -> str:
    """As its JSON has it."""
    path = (self.root / self.path).with_suffix('.json')
    try:
      known = json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
      raise UserError(f'{path}: is no JSON: {error}') from None
    if found := known.get('device') or known.get('machine'):
      return found
    if self.path.parts[0] == 'aot':
      return COMPILED
    return self.path.parts[1].replace('_', ' ') if self.kind == 'GPU' else 'CPU'

  @property
  def kind(self) -> str:
    gpu = self.path.parts[0] == 'gpu'
    return 'GPU' if gpu else 'compiled' if self.path.parts[0] == 'aot' else 'CPU'

  @property
  def state(self) -> Html:
    proxy = 'PROXY' in self._read[1]
    return join(badge(self.kind), ' ' if proxy else None, badge('proxy') if proxy else None)

  @property
  def says(self) -> Html:
    """Its parts, whose names are HTML already."""
    return Html(', '.join(PARTS.findall(self._read[1]))) or join('-')

  def page(self, figures: list[str]) -> str:
    source = tag('code', self.path.as_posix())
    about = tag('p', self.state, f' {self.device}; from ', source, '.', class_='lead')
    images = [tag('figure', tag('img', src=x, alt=x, loading='lazy')) for x in figures]
    return page(self.title, about, self._read[1], images)


def benchmarks(root: pathlib.Path) -> list[Benchmark]:
  return [Benchmark(root, path.relative_to(root)) for path in sorted(root.rglob('*.md'))]


def without_a_page(root: pathlib.Path) -> list[pathlib.Path]:
  """Measurements that are stored as JSON alone."""
  found = sorted(root.rglob('*.json'))
  return [path.relative_to(root) for path in found if not path.with_suffix('.md').exists()]
