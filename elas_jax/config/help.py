"""--help=SECTION: sections, their kinds with a line each, and a kind's fields."""

import ast
import dataclasses
import difflib
import functools
import inspect
import textwrap
import typing
from typing import Any, Literal

from elas_jax.common.errors import UserError
from elas_jax.common.limits import shown
from elas_jax.config import schema
from elas_jax.config.config import SECTIONS, Config
from elas_jax.config.conversion import CONVERSION
from elas_jax.config.overrides import CONFIG, Root
from elas_jax.systems.kinds import (
  Kinds,
  is_phase,
  kinds_of,
  name_of,
  resolve_of,
  room,
  several_of,
)

ROOTS = {'converter': CONVERSION}  # by what a path begins with; all others: CONFIG


def sections() -> list[str]:
  """All sections of a config by path, those inside of kinds not among them."""
  found = []
  for task in SECTIONS:
    for field in dataclasses.fields(Config):
      type_ = _class_of(Config, field, task)
      if _kinds(field) or dataclasses.is_dataclass(type_):
        found.append(field.name)
      if dataclasses.is_dataclass(type_):
        inner = dataclasses.fields(type_)
        found += [f'{field.name}.{x.name}' for x in inner if _kinds(x)]
  return list(dict.fromkeys(found))


def help_on(path: str) -> str:
  """The help on a section, or on a kind of one ('model.linear.lora').

  Where sections differ by task, on each.

  Raises:
    UserError: there is no such section or kind.
  """
  root = ROOTS.get(path.partition('.')[0], CONFIG)
  found, errors = {}, []
  for task in SECTIONS:
    try:
      found.setdefault(_text(path, task, root), []).append(task)
    except UserError as error:
      errors.append(error)
  if not found:  # of the task that knows the most of the path
    unknown = lambda text: ('is a field' not in text, 'there is no' in text)
    raise min(errors, key=lambda error: unknown(str(error)))
  if len(found) == 1:
    return next(iter(found))
  return '\n\n'.join(f'task={" or ".join(tasks)}: {x}' for x, tasks in found.items())


def _text(path: str, task: str, root: Root) -> str:
  cls, kinds = root.cls, None
  many, where, flag = None, '', ''  # as help has it, with kinds, and as an override has it
  for part in path.split('.'):
    if kinds is not None:
      kind = part if part in kinds else _having(kinds, part)
      if not kind:
        schema.check_kind(kinds, part, where)
      cls, kinds, where = kinds[kind], None, f'{where}.{kind}'
      flag = f'{flag}.{kind}' if many else flag
      if kind == part:
        continue
    fields = {x.name: x for x in dataclasses.fields(cls)} if _is_section(cls) else {}
    if part not in fields:
      close = difflib.get_close_matches(part, fields, 1)
      raise UserError(
        f'--help={path}: there is no {shown(part)} in {where or root.name}; '
        f'{f"did you mean {close[0]}? " if close else ""}accepted: '
        f'{", ".join(fields) or "nothing, it is a field"}'
      )
    many, kinds = several_of(fields[part]), _kinds(fields[part])
    cls = _class_of(cls, fields[part], task)
    where, flag = (f'{above}.{part}' if above else part for above in (where, flag))
  if kinds is not None:
    return _of_kinds(where, root.flag + flag, kinds, bool(many))
  if not _is_section(cls):
    above = where.rpartition('.')[0]
    there = f'--help={above} has it' if above else '--help lists sections'
    raise UserError(f'--help={path}: is a field, not a section; {there}')
  return _of_class(cls, task)


def _having(kinds: Kinds, name: str) -> str:
  """The first kind that has a field of this name, or ''."""
  has = lambda kind: any(field.name == name for field in dataclasses.fields(kind))
  return next((kind for kind in kinds if has(kinds[kind])), '')


def _is_section(cls: Any) -> bool:
  return isinstance(cls, type) and dataclasses.is_dataclass(cls)


def _class_of(cls: type, field: dataclasses.Field, task: str) -> Any:
  if cls is Config and field.name in SECTIONS[task]:
    return SECTIONS[task][field.name]
  return schema.hints(cls)[field.name]


def _kinds(field: dataclasses.Field) -> Kinds | None:
  return kinds_of(field) or several_of(field)


def _of_kinds(where: str, flag: str, kinds: Kinds, several: bool) -> str:
  width = max(map(len, kinds))
  how = 'KIND,KIND,..., some of' if several else 'KIND, one of'
  lines = [f'{flag}={how}', '']
  lines += [f'  {name:{width}}  {first_line(kind)}' for name, kind in kinds.items()]
  return '\n'.join([*lines, '', f'The fields of a kind: --help={where}.KIND'])


def _of_class(cls: type, task: str) -> str:
  title = first_line(cls)
  rows = []
  for field in dataclasses.fields(cls):
    type_, comment = _class_of(cls, field, task), comments(cls).get(field.name, '')
    if kinds := kinds_of(field):
      default = f'default: {name_of(kinds, field.default_factory())}'
      told = f'{comment}; {default}' if comment else default
      rows.append((field.name, 'one of ' + ', '.join(kinds), told))
    elif kinds := several_of(field):
      default = [name_of(kinds, kind) for kind in field.default_factory()]
      told = f'{comment}; default: {",".join(default) or "none"}'
      rows.append((field.name, 'some of ' + ', '.join(kinds), told))
    elif dataclasses.is_dataclass(type_):
      rows.append((field.name, 'section', first_line(type_)))
    else:
      rows.append((field.name, f'{_type(field, type_)} = {field.default!r}', comment))
  return '\n'.join([title, '', *(_row(*row) for row in rows)])


def _row(name: str, what: str, comment: str) -> str:
  line = f'  {name:22s} {what}'
  return f'{line}\n  {"":22s}   {comment}' if comment else line


def _type(field: dataclasses.Field, type_: Any) -> str:
  if is_phase(field) and not resolve_of(field):
    return 'steps or share of train.steps'
  if typing.get_origin(type_) is Literal:
    return '|'.join(map(str, typing.get_args(type_)))
  return (
    getattr(type_, '__name__', str(type_)) if type_ in (int, float, bool, str) else 'tuple'
  )


def first_line(cls: type) -> str:
  """Of a kind the line of its file; of other classes that of their own docstring."""
  doc = room(cls).__doc__ if hasattr(room(cls), 'CASES') else cls.__doc__
  return (doc or '').strip().splitlines()[0]


@functools.cache
def comments(cls: type) -> dict[str, str]:
  """The comments of a dataclass's fields: on the line, or in the lines above it."""
  found = {}
  for base in reversed(cls.__mro__[:-1]):
    lines = inspect.getsource(base).splitlines()
    body = ast.parse(textwrap.dedent('\n'.join(lines))).body[0].body
    for node in body:
      if isinstance(node, ast.AnnAssign):
        found[node.target.id] = _comment(lines, node)
  return found


def _comment(lines: list[str], node: ast.AnnAssign) -> str:
  last = lines[node.end_lineno - 1]
  if '  # ' in last:
    return last.partition('  # ')[2].strip()
  above, number = [], node.lineno - 2
  while number >= 0 and lines[number].strip().startswith('# '):
    above.insert(0, lines[number].strip().removeprefix('# '))
    number -= 1
  return ' '.join(above)
