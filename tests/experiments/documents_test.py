"""What README and docs say of tables: examples that run, numbers that are in the tables."""

import pathlib
import re
import textwrap

from elas_jax.run.record import Record
from elas_jax.tables.plan import Plan
from experiments import papers, run

ROOT = pathlib.Path(run.__file__).parents[1]


def test_the_table_of_ones_own_runs(tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  text = (ROOT / 'docs/tables.md').read_text()
  (found,) = re.findall(r'(?m)^    # mine.py\n((?:    .*\n|\n)+)', text)
  assert len(found.splitlines()) <= 40
  (tmp_path / 'mine.py').write_text(textwrap.dedent(found))
  table = papers.table_of(str(tmp_path / 'mine.py'))
  plan = Plan(table, 'smoke', Record(()))
  labels = [one.label for one in plan.todo(plan.lines)]
  assert labels == [f'{x}_{r}' for r in (8, 32) for x in ('elas_adamw', 'low_rank_relu2')]
  assert [line.config.model.linear.rank for line in plan.lines] == [8, 8, 32, 32]
  assert table.conclude([]) == []


def test_every_number_of_the_readme_is_in_the_table_that_it_names():
  """Of rows that link to a rendered page; and those of proxies say so."""
  text = (ROOT / 'README.md').read_text().partition('## Results')[2]
  rows = re.findall(r'^\| (.*) \| (.*) \| \[.*?\]\((.*)\) \|$', text, re.M)
  assert len(rows) >= 7
  for what, result, link in rows:
    page = (ROOT / link).read_text()
    numbers = re.findall(r'[+-]?\d+\.\d+(?: ± \d+\.\d+)?', result)
    assert numbers and all(x in page for x in numbers), (what, result)
    assert ('proxy' in what) == ('PROXY' in page), what
