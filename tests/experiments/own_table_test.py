"""A table in a file of one's own: where its results lie, and what its page calls it."""

import pytest

from elas_jax.common.errors import UserError
from elas_jax.run.record import append
from elas_jax.tables import figures
from experiments import papers, render, run
from tests.tables.fakes import record_all

TABLE = """
from elas_jax.tables.table import RATE, Row
from tests.tables.fakes import pair

TABLE = pair(rows=lambda at: [Row('one', 'low_rank', {RATE: 0.5})])
"""
MADE = 'Made by `python -m experiments.run {} --scale=proxy`'


@pytest.fixture
def file(tmp_path, monkeypatch):
  """With its record, in a folder of the current one."""
  path = tmp_path / 'my studies/mine.py'
  path.parent.mkdir()
  path.write_text(TABLE)
  for one in record_all(papers.table_of(str(path)), lambda run: 2.0):
    append(path.parent / 'results/runs.jsonl', one)
  monkeypatch.setattr(figures, 'plot', lambda *_: None)
  monkeypatch.chdir(tmp_path)
  return path


def page_of(file):
  return (file.parent / 'results/tables/mine.md').read_text()


def test_it_is_rendered_where_its_runs_are(file, capsys):
  options, _ = run.parser().parse_known_args([str(file), '--scale=proxy'])
  work = run.Work(options, [])
  assert work.results == file.parent / 'results' and not work.todo(work.plan())
  render.main([str(file)])
  assert '3 of 3 runs' in capsys.readouterr().out
  by_render = page_of(file)
  work.show()
  assert page_of(file) == by_render
  # What is said of the record of this project is not said of another.
  assert papers.ABOUT[0] not in (file.parent / 'results/RESULTS.md').read_text()
  assert not (file.parents[1] / 'experiments').exists()


def test_each_table_is_rendered_in_its_own_place_or_none_is(file):
  names = [str(file), 'table5_rules']
  with pytest.raises(UserError, match='^--results=experiments/results: has no runs.jsonl'):
    render.main(names)
  assert not (file.parent / 'results/tables').exists()
  papers.RESULTS.mkdir(parents=True)
  (papers.RESULTS / 'runs.jsonl').touch()
  render.main(names)
  assert 'mine.md' in (file.parent / 'results/RESULTS.md').read_text()
  assert papers.ABOUT[0] in (papers.RESULTS / 'RESULTS.md').read_text()
  render.main(['table5_rules', f'--results={papers.RESULTS.absolute()}'])
  assert papers.ABOUT[0] in (papers.RESULTS / 'RESULTS.md').read_text()


def test_its_page_names_it_as_from_the_current_folder(file, monkeypatch):
  for name in (str(file), 'my studies/mine.py', 'my studies/../my studies/mine.py'):
    render.main([name])
    assert MADE.format("'my studies/mine.py'") in page_of(file)
  (file.parents[1] / 'elsewhere').mkdir()
  monkeypatch.chdir(file.parents[1] / 'elsewhere')
  for name in (str(file), '../my studies/mine.py'):  # no path of a machine on a page
    render.main([name])
    assert MADE.format('mine.py') in page_of(file)
