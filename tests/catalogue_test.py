"""The catalogue against the files of elas_jax/systems, and against papers looked up."""

import ast
import pathlib

import pytest

from elas_jax import catalogue
from elas_jax.common.errors import UserError

FOLDER = pathlib.Path(catalogue.__file__).parent / 'systems'
# Of ideas that came without one, or are not from a paper.
PAPERS = {
  ('model.linear', 'lora'): '2106.09685, 2307.05695',
  ('model.linear', 'dense'): '',
  ('model.linear', 'kan_bspline'): '2404.19756',
  ('model.feed_forward', 'relu2_two_four'): '2605.03667',
  ('model.attention', 'mha'): '1706.03762',
  ('model.attention', 'gqa'): '2305.13245',
  ('model.attention', 'mla'): '2405.04434, 2503.12167',
  ('model.norm', 'batch'): '1502.03167',
  ('train.objectives', 'l1_activations'): '2402.13516',
  ('eval.measures', 'activations'): '2605.03667, 2404.01847',
  ('eval.measures', 'spectrum'): '',
  ('optimizer', 'galore'): '2403.03507',
  ('optimizer', 'adamw'): '1711.05101',
  ('schedule', 'wsd'): '2404.06395',
  ('data.source (rows)', 'function'): '2404.19756',
  ('data.tokenizer', 'bytes'): '',
}


def defines_cases(path):
  for node in ast.parse(path.read_text()).body:
    names = [getattr(node, 'name', None)]
    names += [x.id for x in getattr(node, 'targets', ()) if isinstance(x, ast.Name)]
    if 'CASES' in names:
      return True
  return False


def test_every_file_of_a_system_is_listed_once():
  files = [path for path in FOLDER.glob('*/*.py') if defines_cases(path)]
  assert len(files) > 60
  kinds = [kind for kinds in catalogue.SYSTEMS.values() for kind in kinds.values()]
  listed = [pathlib.Path(catalogue.room(kind).__file__) for kind in kinds]
  assert sorted(listed) == sorted(files)
  assert {path.parent.name for path in files} == {
    path.name for path in FOLDER.iterdir() if (path / '__init__.py').exists()
  }


def test_kinds_are_named_as_their_files():
  for kinds in catalogue.SYSTEMS.values():
    for name, kind in kinds.items():
      assert pathlib.Path(catalogue.room(kind).__file__).stem == name


def test_papers_are_found():
  found = {(section, name): papers for section, name, papers, _ in catalogue.rows()}
  assert {key: found[key] for key in PAPERS} == PAPERS


def test_every_system_has_a_line():
  for section, name, _, line in catalogue.rows():
    assert line and len(line) <= 92 and line[-1] in '.:', (section, name, line)


def test_text(capsys):
  catalogue.main([])
  lines = capsys.readouterr().out.splitlines()
  at = lines.index('model.linear')
  assert lines[at + 1].split(None, 2) == [
    'dense',
    '-',
    'y = x W + bias, a plain linear map.',
  ]
  rows = [line for line in lines if line.startswith('  ')]
  assert len(rows) == sum(map(len, catalogue.SYSTEMS.values()))
  assert [line for line in lines if line and line[0] != ' '] == list(catalogue.SYSTEMS)


def test_markdown(capsys):
  catalogue.main(['--format=markdown'])
  lines = capsys.readouterr().out.splitlines()
  assert all(line.count(' | ') >= 3 and line[:1] == line[-1:] == '|' for line in lines[2:])
  (cola,) = (line for line in lines if '`cola`' in line)
  assert cola == (
    '| `model.linear` | `cola` | [2502.10940](https://arxiv.org/abs/2502.10940) | '
    'y = silu(x A) B (CoLA, arXiv 2502.10940). |'
  )


def test_unknown_format_is_refused():
  with pytest.raises(UserError, match='^--format=html: must be one of text, markdown'):
    catalogue.main(['--format=html'])
