"""Changes of a ConfigDict by path: kinds by name, fields by the types of their classes."""

import ast
import copy
import dataclasses
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from ml_collections import ConfigDict, FieldReference

from elas_jax.common.errors import UserError
from elas_jax.common.limits import check_float, cut, shown
from elas_jax.config import schema
from elas_jax.config.config import Config, sections_of
from elas_jax.config.parsing import parse
from elas_jax.config.schema import KIND
from elas_jax.systems.kinds import Kinds, is_phase, kinds_of, several_of


class Root(NamedTuple):
  """Of what an override changes a field.

  Attributes:
    cls: the dataclass whose tree it is.
    flag: what flags begin with.
    example: a flag, as an error shows one.
    name: with its article, as help has it.
  """

  cls: type
  flag: str
  example: str
  name: str


CONFIG = Root(Config, '--config.', '--config.train.steps=100', 'a config')


class Place(NamedTuple):
  """Where a path leads: a section of the tree, its class, and the field in it."""

  section: ConfigDict
  field: dataclasses.Field
  type: Any


def choose(
  config: ConfigDict,
  path: str,
  kind: str,
  /,
  keep: bool = False,
  root: Root = CONFIG,
  **fields: Any,
) -> None:
  """Makes a section that kind, with these fields and its defaults in all others.

  choose(config, 'model.linear', 'lora', rank=8)

  With `keep`, fields that the kind of before has too keep their values.
  """
  place = find(config, path, f'{path}={kind}', root)
  kinds, name = kinds_of(place.field), place.field.name
  schema.check_kind(kinds, kind, path)
  new, old = ConfigDict(schema.tree_of_kind(kinds, kinds[kind]())), place.section.get(name)
  old = old if isinstance(old, ConfigDict) else {}
  for field in set(new) & set(old) - {KIND} if keep else ():
    section = isinstance(old[field], ConfigDict)
    _put(new, field, old[field] if section else old.get_ref(field))
  _put(place.section, name, new)
  for name, value in fields.items():
    set_field(config, f'{path}.{name}', value, root)


def choose_several(config: ConfigDict, path: str, value: Any, root: Root = CONFIG) -> None:
  """Makes such a section these kinds: names, or their fields by name."""
  place = find(config, path, cut(f'{path}={value}'), root)
  kinds = several_of(place.field)
  chosen = {
    name: ConfigDict(schema.tree(kinds[name]()) | dict(fields))
    for name, fields in schema.named(kinds, value, path).items()
  }
  _put(place.section, place.field.name, ConfigDict(chosen))


def set_field(config: ConfigDict, path: str, value: Any, root: Root = CONFIG) -> None:
  """Sets the field at a path; the name of a kind sets the section to its defaults."""
  place = find(config, path, cut(f'{path}={value}'), root)
  if kinds_of(place.field):
    choose(config, path.removesuffix(f'.{KIND}'), value, root=root)
  elif several_of(place.field) and not dataclasses.is_dataclass(place.type):
    choose_several(config, path, value, root)
  else:
    _set(config, place, value, root)


def set_fields(config: ConfigDict, fields: Mapping[str, Any]) -> None:
  """Sets many fields by path, kinds before the fields in them."""
  for path in sorted(fields, key=lambda path: path.count('.')):
    set_field(config, path, fields[path])


def of_another_kind(config: ConfigDict, path: str) -> bool:
  """Whether only kinds that the config has not chosen have the field at a path."""
  parts = path.split('.')
  for depth in range(1, len(parts)):
    above, name = '.'.join(parts[:depth]), parts[depth]
    place = find(config, above, path)
    kinds, section = kinds_of(place.field), place.section.get(place.field.name, {})
    if kinds and name not in section:
      return any(name in schema.hints(kind) for kind in kinds.values())
  return False


def apply(config: ConfigDict, overrides: Sequence[str], root: Root = CONFIG) -> None:
  """Applies '--config.FIELD=VALUE', in any order: kinds before the fields in them.

  Those of another root begin with its own flag.

  Raises:
    UserError: no such field, not one of this kind, or not a value of its type.
  """
  given = {}
  for override in overrides:
    name, equals, text = override.removeprefix(root.flag).partition('=')
    if not override.startswith(root.flag) or not equals:
      raise UserError(
        f'{shown(override)}: no such flag; a field is overridden like {root.example}, '
        'and --help shows the flags'
      )
    given[name.removesuffix(f'.{KIND}')] = name, text  # the last of several counts
  for name in sorted(given, key=lambda name: name.count('.')):
    _override(config, name, *given[name], root)


def _override(config: ConfigDict, name: str, written: str, text: str, root: Root) -> None:
  given = cut(f'{written}={text}')
  place = find(config, name, given, root)
  if kinds_of(place.field):
    choose(config, name, text, root=root)
    return
  if several_of(place.field) and not dataclasses.is_dataclass(place.type):
    choose_several(config, name, text, root)
    return
  if written != name:  # a kind of what has none
    find(config, written, given, root)
  if dataclasses.is_dataclass(place.type):
    accepted = ', '.join(
      f'{name}.{field}' for field in sorted(f.name for f in dataclasses.fields(place.type))
    )
    raise UserError(f'{given}: is a section; accepted: {accepted}')
  _set(config, place, _value(place, name, text), root)


def at_least(limit: int, value: FieldReference) -> FieldReference:
  """The larger of both, which follows the value; by what a reference can do."""
  return (value + limit + abs(value - limit)) // 2


def at_most(limit: int, value: FieldReference) -> FieldReference:
  """The smaller of both, which follows the value."""
  return (value + limit - abs(value - limit)) // 2


def _set(config: ConfigDict, place: Place, value: Any, root: Root = CONFIG) -> None:
  """Sets a field; a share of steps as those steps, for what a config file derives."""
  section, name = place.section, place.field.name
  share = is_phase(place.field) and type(value) is float and 0 < value < 1
  if share and name in section and root is CONFIG:
    train = find(config, 'train.steps', name).section
    if type(train.get('steps')) is int:
      steps = (train.get_ref('steps') * value + schema.ROUNDING).to_int()
      value = at_least(1, steps)
      if isinstance(_fields(section)[name], FieldReference):  # others may follow it
        section.get_ref(name).set(value, type_safe=False)
        return
  _put(section, name, value)


def _value(place: Place, name: str, text: str) -> Any:
  """The text as a value of the field's type."""
  kind = place.type
  if kind is str or typing.get_origin(kind) is Literal:
    return text
  value = _literal(text)
  accepted = {int: (int, float) if is_phase(place.field) else (int,), float: (float, int)}
  plain = typing.get_origin(kind) or kind
  if type(value) not in accepted.get(plain, (plain,)):
    raise UserError(f'{name}={shown(text)}: must be of type {plain.__name__}')
  if plain is int and isinstance(value, float) and value == 1:  # one step, or all?
    raise UserError(
      f'{name}={shown(text)}: must be a number of steps, as 1, or a share of train.steps '
      'below 1'
    )
  if isinstance(value, (int, float)) and plain is float:  # too large a one for float32
    check_float(name, value)
  return value


def _literal(text: str) -> Any:
  """A number, a bool or a tuple as Python writes it; the text itself otherwise."""
  if text.lower() in ('true', 'false'):
    return text.lower() == 'true'
  try:
    value = ast.literal_eval(text)
  # What it may raise, by its documentation: the last three for operators or brackets of too
  # many levels; ValueError also for an integer of too many digits.
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    return text
  return tuple(value) if isinstance(value, list) else value


def find(config: ConfigDict, path: str, given: str, root: Root = CONFIG) -> Place:
  """Where a path leads; sections on the way are filled with their defaults.

  `given` is the path with its value, for errors.
  """
  section, cls, above = config, root.cls, ''
  chosen = sections_of(config) if root is CONFIG else {}
  kinds: Kinds | None = None
  parts = path.split('.')
  while True:
    part = parts.pop(0)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    if part not in fields:
      raise _no_field(config, cls, kinds, section, above, part, given)
    field, type_ = fields[part], chosen.get(part) or schema.hints(cls)[part]
    if not parts:
      return Place(section, field, type_)
    kinds, where = kinds_of(field), above + part
    if own := several_of(field):
      name = parts.pop(0)
      section = _one_of(section, field, own, name, where, given, root)
      where, type_ = f'{where}.{name}', own[name]
      if not parts:
        return Place(section, field, type_)
    elif kinds or dataclasses.is_dataclass(type_):
      section = _section(section, field, kinds, type_, where)
    else:
      raise UserError(f'{given}: no such field; {where} is not a section')
    above = f'{where}.'
    cls, chosen = kinds[_kind(kinds, section, above)] if kinds else type_, {}


def _one_of(
  section: ConfigDict,
  field: dataclasses.Field,
  kinds: Kinds,
  name: str,
  where: str,
  given: str,
  root: Root,
) -> ConfigDict:
  """The fields of one of the kinds that a section made by `several` has."""
  schema.check_kind(kinds, name, where)
  value = section.get(field.name)
  if not isinstance(value, ConfigDict):  # names alone, or nothing: the defaults
    names = [n for kind in field.default_factory() for n in kinds if type(kind) is kinds[n]]
    value = names if value is None else value
    value = ConfigDict(schema.named(kinds, value, where))
    _put(section, field.name, value)
  if name not in value:
    raise UserError(
      f'{given}: {where} is {",".join(value) or "empty"}; name {name!r} there as well, as '
      f'by {root.flag}{where}={",".join([*value, name])}'
    )
  _put(value, name, ConfigDict(schema.tree(kinds[name]()) | dict(value[name])))
  return value[name]


def _section(
  section: ConfigDict, field: dataclasses.Field, kinds: Any, type_: Any, where: str
) -> ConfigDict:
  """The section of a field, made of its defaults or of the kind that stands for them."""
  if field.name not in section:
    default = (
      schema.tree_of_kind(kinds, field.default_factory()) if kinds else schema.tree(type_())
    )
    _put(section, field.name, ConfigDict(default))
  value = section[field.name]
  if kinds and not isinstance(value, ConfigDict):  # a name alone
    schema.check_kind(kinds, value, where)
    value = ConfigDict(schema.tree_of_kind(kinds, kinds[value]()))
    _put(section, field.name, value)
  if not isinstance(value, ConfigDict):
    raise schema.no_section(where, value)
  return value


def _kind(kinds: Kinds, section: ConfigDict, above: str) -> str:
  name = section.get(KIND)
  schema.check_kind(kinds, name, above[:-1])
  return name


def _no_field(config, cls, kinds, section, above: str, part: str, given: str) -> UserError:
  if kinds:
    return schema.other_kinds(
      kinds, section[KIND], part, above[:-1], given.partition('=')[2]
    )
  takes = lambda path: _takes(config, path, given.partition('=')[2])
  return schema.unknown(cls, part, above, given, _paths(config), takes)


def _takes(config: ConfigDict, path: str, text: str) -> bool:
  """Whether no check refuses the field at a path for this value, if it is of its type."""
  tried = copy.deepcopy(config)
  try:
    place = find(tried, path, path)
    _set(tried, place, _value(place, path, text))
  except UserError:  # a value of another type says nothing
    return True
  try:
    parse(tried)
  except UserError as error:
    return not str(error).startswith(f'{path}=')
  return True


def _paths(section: Any, above: str = '') -> list[str]:
  found = []
  for name in section:
    if isinstance(value := section.get(name), ConfigDict):
      found += _paths(value, f'{above}{name}.')
    else:
      found.append(above + name)
  return found


def check_references(config: ConfigDict, spec: str) -> None:
  """Refuses two fields that are one reference: to set one would set the other, unsaid.

  Args:
    spec: of the config file, for the message.
  """
  found: dict[int, str] = {}
  for path, value in _leaves_of(config):
    if isinstance(value, FieldReference):
      other = found.setdefault(id(value), path)
      if other != path:
        raise UserError(
          f'--config={spec}: {other} and {path} are one reference, so that a value given '
          'to one would be that of both; the one that follows must be computed, such as '
          'get_ref(...) + 0'
        )


def _leaves_of(section: ConfigDict, above: str = '') -> Iterator[tuple[str, Any]]:
  """(Path, value) of all fields, with references as such."""
  for name, value in _fields(section).items():
    if isinstance(value, ConfigDict):
      yield from _leaves_of(value, f'{above}{name}.')
    else:
      yield f'{above}{name}', value


def _fields(section: ConfigDict) -> dict[str, Any]:
  """With references as such."""
  return dict(section.items(preserve_field_references=True))


def _put(section: ConfigDict, name: str, value: Any) -> None:
  """Sets a field, to a value of another type too; what refers to it follows."""
  fields = _fields(section)
  with section.unlocked():
    if not isinstance(fields.get(name), FieldReference):
      # What is deleted first has no type to keep; ignore_type() walks over all below.
      if name in fields:
        del section[name]
      section[name] = value
      return
    with section.ignore_type():
      section[name] = value
