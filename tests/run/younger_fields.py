"""Sections and kinds of a config with fields, or defaults, that no run has heard of."""

import contextlib
import dataclasses
import importlib
import inspect
import pkgutil

from elas_jax import systems
from elas_jax.config import schema
from elas_jax.config.config import SECTIONS, Config
from elas_jax.run import ended, record
from elas_jax.tables import plan

# What `dataclass` writes into a class.
WRITTEN = (
  '__init__',
  '__repr__',
  '__eq__',
  '__hash__',
  '__setattr__',
  '__delattr__',
  '__match_args__',
  '__replace__',
  '__dataclass_fields__',
  '__dataclass_params__',
)


def kinds_of_systems():
  """Every kind of every dict of elas_jax/systems."""
  folders = [x.name for x in pkgutil.iter_modules(systems.__path__) if x.ispkg]
  modules = [importlib.import_module(f'elas_jax.systems.{name}') for name in folders]
  dicts = [x for module in modules for x in vars(module).values() if isinstance(x, dict)]
  found = [y for x in dicts for y in x.values() if dataclasses.is_dataclass(y)]
  assert len(folders) > 10 and len(found) > 60
  return found


def sections(cls=Config):
  """The class and every class of a section in it, kinds apart."""
  inner = [x for x in schema.hints(cls).values() if dataclasses.is_dataclass(x)]
  return [cls, *(y for x in inner for y in sections(x))]


OF_TASKS = [cls for of_task in SECTIONS.values() for cls in of_task.values()]
PLAIN = list(dict.fromkeys([*sections(), *OF_TASKS]))
CLASSES = list(dict.fromkeys([*PLAIN, *kinds_of_systems()]))


def forget():
  """What was made of the classes as they were; recorded runs are to be read anew."""
  record.key.cache_clear()
  record._run.cache_clear()
  ended._key.cache_clear()
  ended._size_of.cache_clear()
  plan._made.cache_clear()
  plan._loaded.cache_clear()
  schema.hints.cache_clear()


@contextlib.contextmanager
def remade(cls, annotations, **values):
  """A section or a kind made anew with these fields and defaults."""
  before = dict(vars(cls))
  for name in inspect.get_annotations(cls):  # with their metadata, as they were written
    setattr(cls, name, cls.__dataclass_fields__[name])
  for name in WRITTEN:
    if name in vars(cls):
      delattr(cls, name)
  cls.__annotations__ = annotations
  for name, value in values.items():
    setattr(cls, name, value)
  dataclasses.dataclass(frozen=True)(cls)
  forget()
  try:
    yield
  finally:
    for name in set(vars(cls)) - set(before):
      delattr(cls, name)
    for name in before.keys() - {'__dict__', '__weakref__'}:
      setattr(cls, name, before[name])
    forget()


@contextlib.contextmanager
def one_more_field(classes):
  with contextlib.ExitStack() as stack:
    for cls in classes:
      own = inspect.get_annotations(cls)
      stack.enter_context(remade(cls, own | {'synthetic': float}, synthetic=7.0))
    yield
