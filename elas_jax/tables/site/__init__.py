"""A site of all tables, measurements and systems: files that need no server and no network.

Rendered from the record of runs, as the Markdown tables are, by the same `Section`s; the
same record gives the same bytes.
"""

import pathlib
import shutil

from elas_jax.common.errors import UserError
from elas_jax.common.places import write_text
from elas_jax.tables.render import Section, sections
from elas_jax.tables.site.benchmark_page import benchmarks, without_a_page
from elas_jax.tables.site.html import HERE
from elas_jax.tables.site.index_page import Catalogue, index_page
from elas_jax.tables.site.table_page import Figures, table_page
from elas_jax.tables.table import Table

OURS = '<meta name="generator" content="elas-jax report">'
# Bytes of one figure, and of all: with the pages below 2 MB.
FIGURE, ALL_FIGURES = 300_000, 900_000


class Site:
  """What is written to a folder, in order."""

  def __init__(self, output: pathlib.Path):
    self.output, self.room, self.size = output, ALL_FIGURES, 0
    self.names: list[str] = []

  def write(self, name: str, text: str) -> None:
    write_text(self.output / name, text)
    self._note(name)

  def figures(self, paths: dict[str, pathlib.Path]) -> Figures:
    """Copies those that there is room for, by their names here."""
    shown, left_out = [], []
    for name, path in paths.items():
      size = path.stat().st_size
      if size > min(FIGURE, self.room):
        left_out.append(path)
        continue
      self.room -= size
      shutil.copyfile(path, self.output / name)
      self._note(name)
      shown.append(name)
    return Figures(shown, left_out)

  def _note(self, name: str) -> None:
    self.names.append(name)
    self.size += (self.output / name).stat().st_size


def write_site(
  tables: dict[str, Table],
  results: pathlib.Path,
  measured: pathlib.Path,
  output: pathlib.Path,
  catalogue: Catalogue,
) -> Site:
  """Writes a page a table, a page a measurement and index.html to `output`.

  Args:
    tables: by name.
    results: with runs.jsonl and, of figures, tables/.
    measured: where benchmarks have written Markdown; it need not be there.
    catalogue: of all systems, as elas_jax.catalogue has it.

  Raises:
    UserError: `output` holds a page that is none of a site.
  """
  _clear(output)
  site, found = Site(output), {}
  for name, table in tables.items():
    found[name] = sections(name, table, results)
    figures = {x.scale: site.figures(_drawn(results, name, x)) for x in found[name]}
    site.write(f'{name}.html', table_page(name, table, found[name], figures))
  pages = benchmarks(measured)
  for x in pages:
    figure = (x.root / x.path).with_suffix('.png')
    shown = site.figures({f'{x.name}.png': figure} if figure.exists() else {}).shown
    site.write(f'{x.name}.html', x.page(shown))
  alone = without_a_page(measured)
  site.write('index.html', index_page(tables, found, pages, alone, catalogue))
  for name in ('style.css', 'script.js'):
    site.write(name, (HERE / name).read_text())
  return site


def _drawn(results: pathlib.Path, name: str, section: Section) -> dict[str, pathlib.Path]:
  """A table's own figures: rows and rates are drawn in the page."""
  stem = f'{name}_{section.scale}'
  paths = sorted((results / 'tables').glob(f'{stem}_*.png'))
  return {path.name: path for path in paths if path.stem != f'{stem}_rates'}


def _clear(output: pathlib.Path) -> None:
  """Takes away the pages of the site that was here, and nothing that is not ours."""
  output.mkdir(parents=True, exist_ok=True)
  pages = sorted(output.glob('*.html'))
  for path in pages:
    if OURS not in path.read_text(errors='replace'):
      raise UserError(f'{path}: is no page of a report; give another folder')
  for path in pages:
    path.unlink()
