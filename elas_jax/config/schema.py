"""Trees and the dataclasses that they stand for: values by type, kinds by name, errors."""

import dataclasses
import difflib
import functools
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from elas_jax.common.errors import UserError
from elas_jax.common.limits import check_float, check_integer, cut, quoted, shown
from elas_jax.config.moved import NAMED_SETS, moved, moved_kind
from elas_jax.systems.kinds import (
  Instead,
  Kinds,
  by_name,
  instead,
  is_phase,
  kinds_of,
  name_of,
  resolve_of,
  several_of,
)
from elas_jax.systems.optimizers.common import Rules

KIND = 'kind'
ROUNDING = 1e-6  # of a share of steps: 0.29 of 100 are 29


def build(cls: type, tree: Any, chosen: Mapping[str, type], steps: int = 0) -> Any:
  """A dataclass from a nested dict; what it lacks has its default.

  `chosen` says which class a field has that may have several. Numbers of steps that are
  given as shares become those of train.steps, or of `steps`, if there are some.
  """
  if not steps:
    train = _section(tree, 'train', '')
    steps = typed(
      int, train.get('steps', _default(cls, 'train', chosen).steps), 'train.steps'
    )
  return _build(cls, tree, '', steps, chosen)


def _build(cls: type, tree: Any, prefix: str, steps: int, chosen=None) -> Any:
  types, fields = hints(cls), {f.name: f for f in dataclasses.fields(cls)}
  for name in tree:
    if name not in fields:
      raise unknown(cls, name, prefix, f'{prefix}{name}={shown(tree[name])}')
  values = {}
  for name, field in fields.items():
    where, kind = prefix + name, (chosen or {}).get(name, types[name])
    if name not in tree:
      if dataclasses.is_dataclass(kind):
        values[name] = _build(kind, {}, where + '.', steps)
      elif kinds := kinds_of(field):
        values[name] = _of_default(field, kinds, where, steps)
      elif kinds := several_of(field):
        values[name] = _several(kinds, _names(kinds, field.default_factory()), where, steps)
      elif has_default(field):
        values[name] = _typed_field(field, types[name], field.default, where, steps)
      else:
        raise UserError(f'{where}: missing from the config file')
      continue
    value = tree[name]
    if dataclasses.is_dataclass(kind):
      values[name] = _build(kind, _section(tree, name, prefix), where + '.', steps)
    elif kinds := kinds_of(field):
      values[name] = _chosen(kinds, value, where, steps)
    elif kinds := several_of(field):
      values[name] = _several(kinds, value, where, steps)
    else:
      values[name] = _typed_field(field, kind, value, where, steps)
  return cls(**values)


def _of_default(field: dataclasses.Field, kinds: Any, where: str, steps: int) -> Any:
  """A section's default, whose own numbers of steps may be shares."""
  return _chosen(kinds, tree_of_kind(kinds, field.default_factory()), where, steps)


def _chosen(kinds: Mapping[str, type], value: Any, where: str, steps: int) -> Any:
  """The kind that a section names, with its fields."""
  if isinstance(value, str):  # a name alone: its defaults
    value = {KIND: value}
  if not isinstance(value, Mapping) or KIND not in value:
    raise UserError(
      f"{where}={shown(value)}: must be a section with its 'kind', one of "
      f'{quoted(sorted(kinds))}'
    )
  name = value[KIND]
  check_kind(kinds, name, where)
  rest = {key: x for key, x in value.items() if key != KIND}
  for key in rest:
    if key not in {f.name for f in dataclasses.fields(kinds[name])}:
      raise other_kinds(kinds, name, key, where, shown(rest[key]))
  return _build(kinds[name], rest, where + '.', steps)


def _several(kinds: Kinds, value: Any, where: str, steps: int) -> tuple[Any, ...]:
  """The kinds that such a section has, with their fields."""
  sections = named(kinds, value, where)
  fields = lambda name: {KIND: name} | dict(_section(sections, name, f'{where}.'))
  own = [name for name in kinds if name in sections]
  return tuple(_chosen(kinds, fields(name), f'{where}.{name}', steps) for name in own)


def named(kinds: Kinds, value: Any, where: str) -> dict[str, Any]:
  """Name -> fields, of such a section or of names alone: 'a,b' or ('a', 'b').

  Raises:
    UserError: it is neither, or names what is none of the kinds, or one of them twice.
  """
  if isinstance(value, str):
    value = [name for name in value.split(',') if name]
  if isinstance(value, tuple | list):
    for name in value:
      check_kind(kinds, name, where)
      if list(value).count(name) > 1:
        raise UserError(f'{where}={shown(",".join(value))}: {name!r} is there twice')
    value = {name: {} for name in value}
  if not isinstance(value, Mapping):
    raise UserError(
      f'{where}={shown(value)}: must be names, joined by commas, of {quoted(sorted(kinds))}'
    )
  for name in value:
    check_kind(kinds, name, where)
  return dict(value)


def _names(kinds: Kinds, values: Sequence[Any]) -> str:
  return ','.join(by_name(kinds, values))


def check_kind(kinds: Mapping[str, type], name: Any, where: str) -> None:
  if isinstance(name, str) and name in kinds:
    return
  hint, close = '', []
  if isinstance(name, str):
    hint = moved_kind(where, cut(name), kinds)
    known = where == 'data.source' and name in NAMED_SETS  # no typing error
    close = [] if known else difflib.get_close_matches(name, kinds, 1)
  if hint and not (close and where.startswith('data.')):
    hint = f'is now {hint}; '
  else:
    hint = f'did you mean {close[0]!r}? ' if close else ''
  raise UserError(f'{where}={shown(name)}: {hint}must be one of {quoted(sorted(kinds))}')


def _section(tree: Any, name: str, prefix: str) -> Mapping[str, Any]:
  value = tree.get(name, {})
  if not isinstance(value, Mapping):
    raise no_section(prefix + name, value)
  return value


def no_section(where: str, value: Any) -> UserError:
  return UserError(f'{where}={shown(value)}: must be a section of fields')


def _default(cls: type, name: str, chosen: Mapping[str, type]) -> Any:
  return chosen.get(name, hints(cls)[name])()


def has_default(field: dataclasses.Field) -> bool:
  return field.default is not dataclasses.MISSING


@functools.cache
def hints(cls: type) -> dict[str, Any]:
  return typing.get_type_hints(cls)


def unknown(
  cls: type,
  name: str,
  prefix: str,
  given: str,
  elsewhere: Sequence[str] = (),
  takes: Callable[[str], bool] = lambda path: True,
) -> UserError:
  """The error for a field that a section does not have, with the one that was meant.

  `given` is the path with its value, `elsewhere` paths of other sections, of which those
  are meant that take the value.
  """
  names = [f.name for f in dataclasses.fields(cls)]
  in_section = lambda path: path.removeprefix(prefix).partition('.')[0] in names
  found = moved(given.partition('=')[0])
  found = [path for path in found if not path.startswith(prefix) or in_section(path)]
  last = lambda path: path.rpartition('.')[2]
  if not found:
    found = [prefix + close for close in difflib.get_close_matches(name, names, 1)]
  if not found:
    close = difflib.get_close_matches(name, set(map(last, elsewhere)), 1)
    found = [path for path in elsewhere if [last(path)] == close and takes(path)]
  hint = f'did you mean {" or ".join(found[:3])}? ' if found else ''
  accepted = ', '.join(prefix + known for known in sorted(names)) or 'none'
  return UserError(f'{cut(given)}: no such field; {hint}accepted: {accepted}')


def other_kinds(
  kinds: Mapping[str, type], kind: str, name: str, where: str, value: str
) -> UserError:
  """The error for a field that a kind does not have, with the kinds that do."""
  of = {n: [f.name for f in dataclasses.fields(cls)] for n, cls in kinds.items()}
  having = [n for n, names in of.items() if name in names]
  own = ', '.join(f'{where}.{x}' for x in sorted(of[kind])) or 'none'
  close = difflib.get_close_matches(name, of[kind], 1)
  meant = moved(f'{where}.{name}') or [f'{where}.{x}' for x in close]
  there = f'did you mean {" or ".join(meant)}? ' if meant else ''
  if having:
    there = f'{quoted(having)} {"has" if len(having) == 1 else "have"} it; '
  return UserError(
    f'{cut(f"{where}.{name}={value}")}: no such field of {where}={kind!r}; {there}'
    f'accepted: {own}'
  )


def _typed_field(field: dataclasses.Field, kind: Any, value: Any, where: str, steps: int):
  if resolve := resolve_of(field):
    number = lambda x: steps_of(x, where, steps)
    return resolve(typed(kind, value, where), where, number, steps)
  if is_phase(field):
    return steps_of(value, where, steps)
  return typed(kind, value, where)


def steps_of(value: Any, where: str, steps: int) -> int:
  """A number of steps, or a share of all: of these at least one, as 0 may mean all."""
  if isinstance(value, float):
    check_float(where, value)
    if 0 < value < 1:
      return max(int(value * steps + ROUNDING), 1)
    if not value.is_integer():
      raise UserError(
        f'{where}={shown(value)}: must be a number of steps, or between 0 and 1, a share '
        'of train.steps'
      )
    value = int(value)
  return typed(int, value, where)


def typed(kind: Any, value: Any, field: str) -> Any:
  """The value, if it is of the type of its field and within its limits."""
  if kind == Rules:
    return _rules(value, field)
  if typing.get_origin(kind) is tuple:
    if not isinstance(value, (tuple, list)) or not all(type(x) is int for x in value):
      raise UserError(f'{field}={shown(value)}: must be a tuple of integers')
    for size in value:
      check_integer(field, size)
    return tuple(value)
  if typing.get_origin(kind) is Literal:
    if value not in typing.get_args(kind):
      accepted = quoted(typing.get_args(kind))
      raise UserError(f'{field}={shown(value)}: must be one of {accepted}')
    return value
  if kind is float:
    return _number(value, field)
  if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
    raise UserError(f'{field}={shown(value)}: must be of type {kind.__name__}')
  if kind is int:
    check_integer(field, value)
  return value


def _number(value: Any, field: str) -> float:
  if not isinstance(value, (int, float)) or isinstance(value, bool):
    raise UserError(f'{field}={shown(value)}: must be of type float')
  check_float(field, value)
  return float(value)


def _rules(value: Any, field: str) -> Rules:
  """Pairs of (regex, factor of at least 0); also flat lists as JSON gives them back."""
  if not isinstance(value, (tuple, list)):
    raise UserError(f'{field}={shown(value)}: must be pairs (regex, number)')
  rules = []
  for rule in value:
    if not (isinstance(rule, (tuple, list)) and len(rule) == 2 and type(rule[0]) is str):
      raise UserError(f'{field}: {shown(rule)} must be a pair (regex, number)')
    regex, factor = rule
    if type(factor) not in (int, float):
      raise UserError(f'{field}: {shown(rule)} must be a pair (regex, number)')
    try:
      re.compile(regex)
    # The last two: a repetition of too many, brackets of too many levels.
    except (re.error, OverflowError, RecursionError) as error:
      raise UserError(f'{field}: {shown(regex)} is not a regex: {error}') from None
    where = f'{field}: factor of {shown(regex)}'
    factor = _number(factor, where)
    if factor < 0:
      raise UserError(f'{where}={factor!r}: must be at least 0')
    rules.append((regex, factor))
  return tuple(rules)


def tree(value: Any) -> dict[str, Any]:
  """A dataclass as nested dicts, in which each chosen section names its kind."""
  found = {}
  for field in dataclasses.fields(value):
    x = getattr(value, field.name)
    if kinds := kinds_of(field):
      x = tree_of_kind(kinds, x)
    elif kinds := several_of(field):
      x = {name: tree(one) for name, one in by_name(kinds, x).items()}
    elif dataclasses.is_dataclass(x):
      x = tree(x)
    found[field.name] = x
  return found


def tree_of_kind(kinds: Mapping[str, type], value: Any) -> dict[str, Any]:
  return {KIND: name_of(kinds, value)} | tree(value)


def leaves(value: Any, prefix: str = '') -> Iterator[tuple[str, Any, dataclasses.Field]]:
  """(path, value, field) of every field below a config; a chosen section is its name."""
  for field in dataclasses.fields(value):
    x, where = getattr(value, field.name), prefix + field.name
    if kinds := several_of(field):
      yield where, _names(kinds, x), field
      for name, one in by_name(kinds, x).items():
        yield from leaves(one, f'{where}.{name}.')
      continue
    if kinds := kinds_of(field):
      yield where, name_of(kinds, x), field
    if dataclasses.is_dataclass(x):
      yield from leaves(x, where + '.')
    elif not kinds_of(field):
      yield where, x, field


def replaced(value: Any, change: Callable[[Any], Any]) -> Any:
  """The config with `change` of every kind in it, outer ones first; itself if all stay."""
  new = {}
  for field in dataclasses.fields(value):
    x = y = getattr(value, field.name)
    if several_of(field):
      ones = [(one, one.now if isinstance(one, Instead) else one) for one in x]
      news = [replaced(change(now), change) for _, now in ones]
      if any(new is not now for new, (_, now) in zip(news, ones)):
        y = tuple(instead(one, new) for new, (one, _) in zip(news, ones))
    elif dataclasses.is_dataclass(x):
      y = replaced(change(x) if kinds_of(field) else x, change)
    if y is not x:
      new[field.name] = y
  return dataclasses.replace(value, **new) if new else value


def kinds_in(value: Any, prefix: str = '') -> Iterator[tuple[str, Kinds, Any]]:
  """(path, kinds, the chosen one) of every such section, outer ones first."""
  for field in dataclasses.fields(value):
    x, where = getattr(value, field.name), prefix + field.name
    if kinds := several_of(field):
      for name, one in by_name(kinds, x).items():
        yield f'{where}.{name}', kinds, one
        yield from kinds_in(one, f'{where}.{name}.')
    if kinds := kinds_of(field):
      yield where, kinds, x
    if dataclasses.is_dataclass(x):
      yield from kinds_in(x, where + '.')
