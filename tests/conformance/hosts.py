"""Small configs around a case of any kind: where it can stand, and what is drawn for it."""

import dataclasses
import functools
import inspect
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from elas_jax.catalogue import SYSTEMS
from elas_jax.common.errors import UserError
from elas_jax.config.checks import check
from elas_jax.config.config import (
  Config,
  DataConfig,
  EvalConfig,
  MeshConfig,
  ModelConfig,
  NetworkConfig,
  PairsConfig,
  PreferenceConfig,
  RowsConfig,
  TrainConfig,
)
from elas_jax.run import objectives
from elas_jax.run.conversion import linear_maps, loss_of, outputs_of, slopes_of
from elas_jax.run.measures import lacking
from elas_jax.run.sharding import make_mesh
from elas_jax.run.state import init_variables
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.architectures import ARCHITECTURES
from elas_jax.systems.converters.common import Given
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from elas_jax.systems.kinds import name_of, room
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.mixers import MIXERS
from elas_jax.systems.norms import NORMS
from elas_jax.systems.optimizers import OPTIMIZERS
from elas_jax.systems.pair_sources import PAIR_SOURCES
from elas_jax.systems.schedules import SCHEDULES
from elas_jax.tasks import task_of

Case = tuple[str, str, Any]  # section, name of the kind, an instance of it


def cases(section: str, folder: pathlib.Path | None = None) -> Iterator[Case]:
  """Every case of a section's kinds; those of files only where there is a folder."""
  for name, kind in SYSTEMS[section].items():
    found = room(kind).CASES
    if inspect.isfunction(found):
      if folder is None:
        continue
      place = folder / name
      place.mkdir()
      found = found(place)
    for case in found:
      yield section, name, case


def all_cases() -> list[Case]:
  return [case for section in SYSTEMS for case in cases(section)]


def first_cases() -> list[Case]:
  """One of every kind that needs no file."""
  return list(
    {
      (section, name): (section, name, case)
      for section, name, case in reversed(all_cases())
    }.values()
  )


def label(case: Case) -> str:
  section, name, kind = case
  return f'{section}-{name}-{kind}'


def language(**sections: Any) -> Config:
  """A decoder of V 17, D 8, F 16, H 2, N 2, for 20 steps of 4 rows of 8 tokens."""
  model = {
    'linear': LINEARS['dense'](),
    'feed_forward': FEED_FORWARDS['mlp'](),
    'attention': MIXERS['mha'](heads=2),
  }
  sizes = {'vocab_size': 17, 'width': 8, 'layers': 2, 'feed_forward_width': 16}
  fields = {name: sections.pop(name) for name in list(sections) if name in MODEL}
  return _config(
    'language',
    ModelConfig(**sizes | {'unroll': 1} | model | fields),
    DataConfig(sequence_length=8, batch_size=4),
    sections,
  )


LOOP = {'steps': 20, 'log_every': 1, 'compilation_cache': ''}


def preference(**loss: Any) -> Config:
  """The same decoder on 4 pairs of such rows, as if it had learned something before."""
  source = PAIR_SOURCES['pairs']('pairs.jsonl')
  return dataclasses.replace(
    language(),
    task='preference',
    restore='runs/before',
    train=PreferenceConfig(**LOOP, **loss),
    data=PairsConfig(source, sequence_length=8, batch_size=4),
  )


MODEL = {field.name for field in dataclasses.fields(ModelConfig)} | {
  field.name for field in dataclasses.fields(NetworkConfig)
}


def network(**sections: Any) -> Config:
  """A network of D 8 and depth 1 on images of 8 x 8, four classes, 4 rows a step."""
  fields = {name: sections.pop(name) for name in list(sections) if name in MODEL}
  sizes = {'input_shape': (8, 8, 1), 'outputs': 4, 'width': 8, 'depth': 1}
  model = NetworkConfig(**sizes | {'use_bias': True} | fields)
  return _config('classification', model, RowsConfig(batch_size=4), sections)


def transformer(linear: Any = None, norm: Any = None, **parts: Any) -> Config:
  """A vision transformer of H 2 on the 16 patches of such images."""
  given = {'attention': MIXERS['mha'](heads=2), 'patch': 2} | parts
  kind = ARCHITECTURES['vit'](expansion=2, **given)
  biases = 'feed_forward' not in parts  # some feed-forwards have none
  linear = {'linear': linear} if linear else {}
  norm = norm or NORMS['layer']()
  return network(architecture=kind, norm=norm, use_bias=biases, **linear)


def experts(**sections: Any) -> Config:
  """A decoder with a router in each layer, of four experts."""
  return language(feed_forward=FEED_FORWARDS['block'](experts=4), **sections)


def hybrid(mixer: Any) -> Config:
  """A decoder of two layers, the second with that mixer."""
  name = name_of(MIXERS, mixer)
  return language(mixers=(mixer,), pattern=f'attention,{name}')


def _config(task: str, model: Any, data: Any, sections: dict[str, Any]) -> Config:
  common = {
    'optimizer': OPTIMIZERS['adamw'](learning_rate=0.01, clip_norm=1.0),
    'schedule': SCHEDULES['constant'](warmup_steps=0),
    'train': TrainConfig(**LOOP),
    'mesh': MeshConfig(data=1),
    'eval': EvalConfig(batch_size=4),
  }
  return Config(task=task, model=model, data=data, **common | sections)


def hosts(section: str, kind: Any) -> list[Config]:
  """The configs in which the kind can stand, of those that there are for its section."""
  found = []
  for config in _candidates(section, kind):
    try:
      check(config)
      objectives.check(config)
    except UserError:
      continue
    if lacking(config):
      continue
    found.append(config)
  return found


def _candidates(section: str, kind: Any) -> list[Config]:
  convnet, gated = ARCHITECTURES['convnet'](), FEED_FORWARDS['glu']
  ungated, pruned = FEED_FORWARDS['mlp'], FEED_FORWARDS['relu2_two_four']
  low_rank = LINEARS['low_rank'](rank=3)
  return {
    'model.linear': lambda: [
      language(linear=kind),
      network(linear=kind),
      network(linear=kind, architecture=convnet)
      if hasattr(kind, 'convolve')
      else transformer(linear=kind),
    ],
    'model.feed_forward': lambda: [
      language(feed_forward=kind),
      transformer(feed_forward=kind),
    ],
    'model.feed_forward.recipe': lambda: [
      language(feed_forward=pruned(kind, dense_steps=0))
    ],
    'model.attention': lambda: [
      language(attention=kind),
      hybrid(kind),
      transformer(attention=kind),
    ],
    'model.norm': lambda: [
      language(norm=kind),
      network(norm=kind),
      transformer(norm=kind),
    ],
    'model.position': lambda: [language(position=kind), transformer(position=kind)],
    'model.activation': lambda: [
      language(feed_forward=ungated(kind)),
      language(feed_forward=gated(kind)),
      network(activation=kind),
    ],
    'model.architecture': lambda: [network(architecture=kind)],
    'optimizer': lambda: [
      language(optimizer=kind),
      language(optimizer=kind, linear=low_rank),
    ],
    'schedule': lambda: [network(schedule=kind), language(schedule=kind)],
    'train.objectives': lambda: [
      make(train=TrainConfig(**LOOP, objectives=(kind,)))
      for make in (
        (experts,) if {'router', 'experts'} & {*kind.sown} else (network, language)
      )
    ],
    'train.preference': lambda: [preference(preference=kind)],
    'eval.measures': lambda: [
      make(eval=EvalConfig(batch_size=4, measures=(kind,))) for make in (network, language)
    ],
    'data.source': lambda: [_with_data(language(), source=kind)],
    'data.source (rows)': lambda: [_with_data(network(), source=kind)],
    'data.source (pairs)': lambda: [_with_data(preference(), source=kind)],
    'converter': lambda: _taken_by(kind),
    'data.tokenizer': lambda: [_with_data(language(), tokenizer=kind)],
  }[section]()


def _taken_by(converter: Any) -> list[Config]:
  """Those that the converter takes, of models of each linear kind and of other parts."""
  first = {name: case for _, name, case in reversed(list(cases('model.linear')))}
  models = [make(linear=case) for case in first.values() for make in (language, network)]
  if all(_takes(converter, config) for config in models):
    models = models[:2]  # it does not look at linear maps: the first stands for all
  relu = ACTIVATIONS['relu']()
  models += [
    language(feed_forward=FEED_FORWARDS['glu']()),
    language(feed_forward=FEED_FORWARDS['mlp'](relu)),
    _deeper(transformer()),
    *(
      network(architecture=ARCHITECTURES[name](), activation=relu, depth=2)
      for name in ('convnet', 'resnet')
    ),
  ]
  return [config for config in models if _takes(converter, config)]


def _deeper(config: Config) -> Config:
  return dataclasses.replace(config, model=dataclasses.replace(config.model, depth=2))


def _takes(converter: Any, config: Config) -> bool:
  try:
    converter.check('converter', config)
  except UserError:
    return False
  return True


def _with_data(config: Config, **fields: Any) -> Config:
  return dataclasses.replace(config, data=dataclasses.replace(config.data, **fields))


def given(config: Config, variables: Any, said: list[str]) -> Given:
  """What a converter is given of a run with these variables, whose rows are `batch`."""
  mesh = mesh_of(config)
  return Given(
    config=config,
    variables=variables,
    linear_maps=linear_maps(config.model),
    rows=lambda units: batch(config),
    outputs=functools.partial(outputs_of, mesh),
    start=lambda: jax.jit(init_variables, static_argnums=0)(config),
    loss=functools.partial(loss_of, mesh),
    slopes=functools.partial(slopes_of, mesh),
    check=check,
    say=said.append,
  )


def batch(config: Config) -> dict[str, Any]:
  """Rows of the config's task, drawn."""
  random = np.random.default_rng(0)
  most = {'tokens': getattr(config.model, 'vocab_size', 2), 'targets': 4, 'answers': 2}

  def draw(name: str, like: Any) -> Any:
    if name in ('valid', 'bytes'):
      units = task_of(config).row_units(config)
      return np.full(like.shape, units, np.int32)
    if name == 'segments':
      return np.sort(random.integers(0, 3, like.shape, np.int32))
    if like.dtype == np.int32:
      return random.integers(0, most[name], like.shape, np.int32)
    return random.normal(size=like.shape).astype(np.float32)

  rows = task_of(config).rows(config, config.data.batch_size)
  return {name: draw(name, like) for name, like in rows.items()}


def mesh_of(config: Config) -> jax.sharding.Mesh:
  """Of as many devices as the config's mesh has."""
  sizes = dataclasses.astuple(config.mesh)
  return make_mesh(config, jax.devices()[: int(np.prod(sizes))])
