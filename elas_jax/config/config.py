"""A run's config: sections of frozen dataclasses, typed and hashable.

A section that is one of several kinds (`model.linear`) is an instance of its kind, in
elas_jax/systems; in a tree it is {'kind': 'lora', 'rank': 8}. Fields that a tree lacks have
their defaults. parsing.py makes a `Config` of the ConfigDict of a config file.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from elas_jax.common.errors import UserError
from elas_jax.common.limits import shown
from elas_jax.config import migrate, schema
from elas_jax.config.models import ModelConfig, NetworkConfig
from elas_jax.systems.kinds import about, section, several
from elas_jax.systems.measures import MEASURES
from elas_jax.systems.objectives import OBJECTIVES
from elas_jax.systems.optimizers import OPTIMIZERS
from elas_jax.systems.pair_sources import PAIR_SOURCES
from elas_jax.systems.preferences import PREFERENCES
from elas_jax.systems.row_sources import ROW_SOURCES
from elas_jax.systems.schedules import SCHEDULES
from elas_jax.systems.sources import SOURCES
from elas_jax.systems.tokenizers import TOKENIZERS


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """What is read, how it is tokenised and batched. Letters: L, B."""

  source: Any = section(SOURCES, 'python_source')  # of the documents
  # Refuse a corpus with a larger share of unreadable records, or of their bytes, than
  # this. Files that break off are refused below 1: what they have lost is unknown.
  max_bad_share: float = 0.01
  tokenizer: Any = section(TOKENIZERS, 'bytes')  # of text and prompts
  # Join and cut, or one document a row.
  protocol: Literal['packed', 'document'] = 'packed'
  # Attention and positions stay inside of a document. Of 'packed'; in the other protocol
  # there is nothing to hide, and this is False.
  document_mask: bool = True
  sequence_length: int = 128  # L
  batch_size: int = 16  # B, sequences of one optimiser step over all devices
  cache_dir: str = '~/.cache/elas_jax'  # prepared documents and token blocks
  processes: int = 0  # worker processes of the preparation, 0 = all cores
  read_threads: int = 2  # that read batches
  prefetch: int = 8  # batches
  accept_changed: bool = False  # continue a run on other data than it was started with

  def __post_init__(self):
    if self.protocol == 'document':  # one way to say it, so that equal runs are equal
      object.__setattr__(self, 'document_mask', False)


@dataclasses.dataclass(frozen=True)
class RowsConfig:
  """Labelled rows (data/rows.py). Letter: B."""

  source: Any = section(ROW_SOURCES, 'digits')  # of the rows
  augment: str = 'none'  # a name of ops/augment.py:AUGMENTATIONS
  batch_size: int = 64  # B, of one optimiser step over all devices
  cache_dir: str = '~/.cache/elas_jax'  # decoded images
  read_threads: int = 1  # that read batches
  prefetch: int = 8  # batches
  accept_changed: bool = False  # continue a run on other data than it was started with


@dataclasses.dataclass(frozen=True)
class PairsConfig:
  """Pairs of answers (data/pairs.py). Letters: L, B."""

  source: Any = section(PAIR_SOURCES, 'pairs')  # of the pairs
  # Refuse files with a larger share of lines that are no pair, or of their bytes, than
  # this. Files that break off are refused below 1: what they have lost is unknown.
  max_bad_share: float = 0.01
  tokenizer: Any = section(TOKENIZERS, 'bytes')  # of prompts and answers
  sequence_length: int = 128  # L, of a prompt with an answer
  batch_size: int = 16  # B, pairs of one optimiser step over all devices
  cache_dir: str = '~/.cache/elas_jax'  # hashes of the files
  read_threads: int = 1  # that read batches
  prefetch: int = 8  # batches
  accept_changed: bool = False  # continue a run on other data than it was started with

  # As `DataConfig` would say it: a conversation begins its row, and is alone there.
  protocol: ClassVar = 'document'
  document_mask: ClassVar = False


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """The loop."""

  steps: int = 700  # of the optimiser; phases may be shares of them
  accumulation: int = 1  # micro-batches of one optimiser step
  objectives: Any = several(OBJECTIVES)  # what is added to the loss
  log_every: int = 50  # steps
  tensorboard: bool = False  # writes its event files too
  # Folder of compiled programs, kept between runs; '' = off.
  compilation_cache: str = '~/.cache/elas_jax/compiled'


@dataclasses.dataclass(frozen=True)
class PreferenceConfig(TrainConfig):
  """The loop, and the loss of a pair."""

  preference: Any = section(PREFERENCES, 'dpo')  # what is asked of the two answers


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Devices per axis; their product is the number of devices. One may be -1: the rest."""

  data: int = -1  # each has other rows and all parameters
  fsdp: int = 1  # each has other rows and a part of the parameters
  tensor: int = 1  # each has the same rows and a part of each linear map


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """What is kept on disk."""

  every: int = 350  # steps; the last step is always saved
  keep_latest: int = 2  # checkpoints
  keep_best: int = 1  # by eval/loss, of checkpoints at whose step there is an evaluation


@dataclasses.dataclass(frozen=True)
class EvalConfig:
  """Evaluations during training, and the sample at its end."""

  every: int = 350  # steps; the last step is always evaluated
  units: int = 0  # validation tokens (of rows: examples), in whole batches; 0 = all
  batch_size: int = 32  # sequences or examples
  measures: Any = several(MEASURES)  # what is looked at on one batch, in each evaluation
  prompt: str = ''  # continued after training
  sample_tokens: int = 0  # length of that sample, at most L, 0 = none


@dataclasses.dataclass(frozen=True)
class Config:
  """Everything about a run."""

  task: str = 'language'  # a name of SECTIONS
  train: TrainConfig = TrainConfig()  # checked first, since others may follow its steps
  model: ModelConfig | NetworkConfig = ModelConfig()  # by task, see SECTIONS
  data: DataConfig | RowsConfig | PairsConfig = DataConfig()
  optimizer: Any = section(OPTIMIZERS, 'adamw')  # of all parameters
  schedule: Any = section(SCHEDULES, 'cosine')  # of the learning rate
  mesh: MeshConfig = MeshConfig()
  checkpoint: CheckpointConfig = CheckpointConfig()
  eval: EvalConfig = EvalConfig()
  seed: int = 0  # of parameters, batches and what is drawn in training
  restore: str = ''  # workdir whose newest parameters a fresh run starts from, '' = scratch
  profile_steps: str = ''  # 'first,last': trace these steps, '' = none

  @property
  def length(self) -> int:
    """L, the positions of a row: of a sequence, or of an image in a transformer."""
    if self.traits.text:
      return self.data.sequence_length
    return self.model.stack.parts.length if self.model.stack else 1

  @property
  def traits(self) -> 'Traits':
    return TRAITS[self.task]


@dataclasses.dataclass(frozen=True)
class Traits:
  """What a config and the systems must know of a task; the rest is in elas_jax/tasks."""

  model: type  # the class of that section
  data: type  # the class of that section
  normalised: bool  # whether the loss is -log of a probability, with a normaliser Z
  text: bool = False  # whether rows are tokens of text, so that a run has a tokenizer
  train: type = TrainConfig  # the class of that section
  sequences: int = 1  # of L tokens in a row, where rows are text
  reference: bool = False  # whether the loss compares with the parameters at the start


TRAITS = {
  'language': Traits(ModelConfig, DataConfig, normalised=True, text=True),
  'classification': Traits(NetworkConfig, RowsConfig, normalised=True),
  'regression': Traits(NetworkConfig, RowsConfig, normalised=False),
  'preference': Traits(
    ModelConfig,
    PairsConfig,
    normalised=True,
    text=True,
    train=PreferenceConfig,
    sequences=2,
    reference=True,
  ),
}
# Sections whose fields depend on the task.
SECTIONS = {
  task: {'train': traits.train, 'model': traits.model, 'data': traits.data}
  for task, traits in TRAITS.items()
}


def sections_of(tree: Any) -> dict[str, type]:
  """The classes of a tree's sections that depend on its task."""
  task = tree.get('task', 'language')
  if not isinstance(task, str) or task not in SECTIONS:
    accepted = ', '.join(map(repr, SECTIONS))
    raise UserError(f'task={shown(task)}: must be one of {accepted}')
  return SECTIONS[task]


def filled(tree: dict[str, Any]) -> Config:
  """The `Config` of a tree of this version, typed but not checked."""
  return schema.build(Config, tree, sections_of(tree))


def defaults(task: str) -> dict[str, Any]:
  """The tree of a config in which nothing is set, shares of train.steps as such."""
  return schema.tree(Config(task, **{name: cls() for name, cls in SECTIONS[task].items()}))


def at_step(config: Config, step: int) -> Config:
  """The config of one step (from 1): without pruning in the dense phases.

  All have the same parameters; each is compiled on its own.
  """
  return _of_phases(config, lambda kind: about(kind, 'at_step', step, default=kind))


def after(config: Config, step: int) -> Config:
  """The config of a run that starts anew from this step of another one.

  Its phases are what is left of that one's, so that its step 0 computes what this does.
  """
  return _of_phases(config, lambda kind: about(kind, 'after', step, default=kind))


def _of_phases(config: Config, change: Callable[[Any], Any]) -> Config:
  """With `change` of the model's kinds, which alone have phases."""
  model = schema.replaced(config.model, change)
  return config if model is config.model else dataclasses.replace(config, model=model)


def to_tree(config: Config) -> dict[str, Any]:
  """As it is stored: with the version, by which a later one reads it."""
  return {'version': migrate.VERSION} | schema.tree(config)


def to_json(config: Config) -> str:
  return json.dumps(to_tree(config), indent=2, allow_nan=False) + '\n'
