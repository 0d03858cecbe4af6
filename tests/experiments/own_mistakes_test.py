"""A table in a file of one's own: mistakes in it are named before a run is made."""

import pytest

from elas_jax.common.errors import UserError
from elas_jax.run.record import append
from experiments import render, run
from tests.tables.fakes import recorded

MINE = """
from elas_jax.tables.table import Row, Table
from experiments.language import LANGUAGE, scales

def rows(at):
  return [Row('one', 'elas'), Row('two', 'low_rank_relu2', {'model.linear.rank': 4})]

def conclude(entries):
  return []

def cells(config, entry):
  return {}

TABLE = Table(
  title='Mine',
  rows=rows,
  family=LANGUAGE,
  scales=scales(),
  conclude=conclude,
  cells=cells,
)
"""


@pytest.fixture
def made(monkeypatch):
  """Takes the place of training by recorded lines; the labels of the runs."""
  labels = []

  def execute(work, one):
    labels.append(one.label)
    append(work.path, recorded(one.config, 2.0))

  monkeypatch.setattr(run.Work, 'execute', execute)
  return labels


def failing(folder, old, new, scale='smoke', command=run):
  """The error for a table in which this was written instead."""
  assert old in MINE
  (folder / 'mine.py').write_text(MINE.replace(old, new))
  given = [str(folder / 'mine.py'), f'--results={folder / "results"}']
  given += [f'--scale={scale}', f'--runs={folder / "runs"}'] if command is run else []
  with pytest.raises(UserError) as error:
    command.main(given)
  assert '\n' not in str(error.value)
  return str(error.value)


@pytest.mark.parametrize('scale', ['smoke', 'proxy'])
@pytest.mark.parametrize(
  'old, new, said',
  [
    ("'elas')", "'elas', nix)", "mine.py: line 6: NameError: name 'nix' is not defined"),
    ('return []', 'return entries[7]', 'mine.py: line 9: IndexError: list index out of'),
    ('return []', 'return nix', "mine.py: line 9: NameError: name 'nix' is not defined"),
    ('.rank', '.rnk', 'model.linear.rnk=4: no such field of model.linear='),
    ("'elas')", "'elsa')", '--config=configs/proxy.py:elsa: must be METHOD, one of '),
  ],
)
def test_a_mistake_is_one_line_before_a_run_is_made(made, tmp_path, scale, old, new, said):
  assert said in failing(tmp_path, old, new, scale)
  assert not made and not (tmp_path / 'results').exists()


def test_what_fails_by_the_values_alone_has_its_line_too(made, tmp_path):
  late = 'return {} if entry.mean == {} else nix'
  for command in (run, render):
    said = failing(tmp_path, 'return {}', late, command=command)
    assert 'mine.py: line 12: NameError' in said
  assert made == ['one']
