"""Imports go down only, without a circle: experiments -> commands -> ... -> common."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# A module may import what stands above it here, and what is on its own line.
LAYERS = (
  ('pallas_kernels',),
  ('elas_jax.common',),
  ('elas_jax.ops',),
  ('elas_jax.data',),
  ('elas_jax.systems',),
  ('elas_jax.config',),
  ('elas_jax.models',),
  ('elas_jax.tasks',),
  ('elas_jax.run',),
  ('elas_jax.tables',),
  ('elas_jax', 'configs'),  # the commands, and what they are run with
  ('experiments', 'benchmarks'),
)
# Neither imports the other, though they stand on one line.
APART = ('experiments', 'benchmarks')
# Module -> what it imports from above all the same, and why.
COMMANDS_OF_DATA = 'a command: it prepares data and trains nothing'
EXCEPTIONS = {
  ('elas_jax.data.prepare', 'elas_jax.config'): COMMANDS_OF_DATA,
  ('elas_jax.data.prepare', 'elas_jax.systems'): COMMANDS_OF_DATA,
  ('elas_jax.data.refinement', 'elas_jax.config'): COMMANDS_OF_DATA,
  ('elas_jax.data.rules', 'elas_jax.config'): COMMANDS_OF_DATA,
  ('elas_jax.data.train_tokenizer', 'elas_jax.config'): COMMANDS_OF_DATA,
  ('elas_jax.data.train_tokenizer', 'elas_jax.systems'): COMMANDS_OF_DATA,
}


def modules():
  """Name -> path of every module of the project."""
  found = {}
  for folder in ('pallas_kernels', 'elas_jax', 'configs', *APART):
    for path in sorted((ROOT / folder).rglob('*.py')):
      parts = path.relative_to(ROOT).with_suffix('').parts
      if 'configs' in parts[1:]:  # a link to the folder of that name
        continue
      found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
  return found


def imported(name, source, known):
  """The project's modules that a module imports, lazily or not."""
  found = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'{name}: a relative import'
      for alias in node.names:
        whole = f'{node.module}.{alias.name}'
        found.add(whole if whole in known else node.module)
  configs = {x.replace('elas_jax.configs', 'configs', 1) for x in found}
  return {x for x in configs if x in known}


def layer(name):
  """The place of a module in LAYERS: that of the longest prefix."""
  best = max(
    (prefix for names in LAYERS for prefix in names if f'{name}.'.startswith(f'{prefix}.')),
    key=len,
  )
  return next(i for i, names in enumerate(LAYERS) if best in names)


def graph():
  known = modules()
  return {name: imported(name, path.read_text(), known) for name, path in known.items()}


def upward(of):
  return [
    f'{name} imports {other}'
    for name, others in of.items()
    for other in sorted(others)
    if layer(other) > layer(name)
    and not any(
      name == known and f'{other}.'.startswith(f'{above}.') for known, above in EXCEPTIONS
    )
  ]


def across(of):
  top = lambda name: name.split('.')[0]
  return [
    f'{name} imports {other}'
    for name, others in of.items()
    for other in sorted(others)
    if {top(name), top(other)} == set(APART)
  ]


def circle(of):
  """The modules of a circle, in order, or ()."""
  done, path = set(), []

  def visit(name):
    if name in path:
      return (*path[path.index(name) :], name)
    if name in done:
      return ()
    path.append(name)
    for other in sorted(of[name]):
      if found := visit(other):
        return found
    path.pop()
    done.add(name)
    return ()

  return next(filter(None, map(visit, of)), ())


@pytest.fixture(scope='module')
def imports():
  return graph()


def test_imports_go_down(imports):
  assert upward(imports) == []


def test_experiments_and_benchmarks_are_apart(imports):
  assert across(imports) == []


def test_there_is_no_circle(imports):
  assert circle(imports) == ()


def test_what_is_looked_for_is_found():
  below, above = 'elas_jax.ops.linear', 'elas_jax.run.state'
  assert upward({below: {above}}) == [f'{below} imports {above}']
  assert upward({above: {below}}) == []
  for name, other in (APART, APART[::-1]):
    assert across({f'{name}.a': {f'{other}.b'}}) == [f'{name}.a imports {other}.b']
    assert across({f'{name}.a': {f'{name}.b', above}}) == []
  assert circle({'a': {'b'}, 'b': {'c'}, 'c': {'a'}}) == ('a', 'b', 'c', 'a')
  lazily = 'def f():\n  from elas_jax.run.state import x\n'
  assert imported(below, lazily, {above: None}) == {above}


def test_exceptions_are_needed(imports):
  for name, above in EXCEPTIONS:
    assert any(other.startswith(above) for other in imports[name]), (name, above)


def test_only_commands_stand_at_the_top():
  for path in sorted((ROOT / 'elas_jax').glob('*.py')):
    if path.stem in ('__init__', 'commands'):
      continue
    source = path.read_text()
    assert "if __name__ == '__main__':\n  run_command(main)" in source, path.name
