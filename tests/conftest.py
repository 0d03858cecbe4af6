"""Set-up of every test: four fake CPU devices, strict shapes, and small configs."""

import contextlib
import dataclasses
import functools
import gc
import os
import pathlib
import signal
import sys

from absl import flags

# Grain reads absl flags in its workers, and nobody parses them under pytest.
flags.FLAGS.mark_as_parsed()

# A shell's background jobs ignore Control-C, and so would what tests start and stop by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)

# Read when the first program is compiled, here and in processes that tests start. Each of
# these small programs is compiled on one thread, as one module: splitting costs more than
# it saves. And fused loops take a fifth of the time in the older of XLA's two emitters, as
# the newer one, which EMITTERS=newer takes, sets up a compiler for every loop.
OLDER_EMITTERS = os.environ.get('EMITTERS') != 'newer'
FLAGS = ['--xla_cpu_parallel_codegen_split_count=1']
if OLDER_EMITTERS:
  FLAGS.append('--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters')
os.environ['XLA_FLAGS'] = ' '.join([os.environ.get('XLA_FLAGS', ''), *FLAGS]).strip()

import hypothesis  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

# No test is about time, and a loaded machine is slow.
hypothesis.settings.register_profile('here', deadline=None)
hypothesis.settings.load_profile('here')
# Before the first array, which fixes the number of devices.
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 4)
jax.config.update('jax_numpy_rank_promotion', 'raise')
# These models run in no time; what takes long is optimising their programs.
jax.config.update('jax_disable_most_optimizations', True)
# Nobody reads where in a program an operation comes from.
jax.config.update('jax_traceback_in_locations_limit', 0)
# Tracing makes many objects of which few are garbage: looking for it took a tenth.
gc.set_threshold(500_000, 20, 100)

pytest_plugins = ['tests.cost']


def pytest_collection_finish():
  gc.freeze()  # what has been imported stays


ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # configs/, experiments/ and benchmarks/, uninstalled

from configs import default  # noqa: E402
from elas_jax.config.config import (  # noqa: E402
  CheckpointConfig,
  Config,
  EvalConfig,
  MeshConfig,
  TrainConfig,
)
from elas_jax.config.overrides import choose, set_field, set_fields  # noqa: E402
from elas_jax.config.parsing import parse  # noqa: E402
from elas_jax.systems.optimizers import OPTIMIZERS  # noqa: E402
from elas_jax.systems.schedules import SCHEDULES  # noqa: E402
from elas_jax.systems.sources import SOURCES  # noqa: E402


def tiny_config(folder: pathlib.Path, **overrides) -> Config:
  """A model and a run of seconds, whose corpus and cache are below `folder`."""
  config = default.get_config()
  tiny = {
    'model.width': 32,
    'model.layers': 2,
    'model.feed_forward_width': 64,
    'model.unroll': 1,
    'data.source': 'text_files',
    'data.source.path': str(folder / 'corpus'),
    'data.cache_dir': str(folder / 'cache'),
    'data.sequence_length': 32,
    'data.batch_size': 8,
    'data.processes': 1,
    'schedule.warmup_steps': 2,
    'train.steps': 8,
    'train.log_every': 1,
    'train.compilation_cache': '',
    'checkpoint.every': 4,
    'eval.every': 4,
    'eval.units': 512,
    'eval.batch_size': 8,
    'eval.measures': '',
    'eval.sample_tokens': 0,
  }
  set_fields(config, tiny)
  set_small(config, overrides)
  return parse(config)


# Of whichever kinds have them: what suits a model of D 32 and a few steps.
SMALL = {
  'model.linear.rank': 8,
  'model.feed_forward.dense_steps': 0,
  'optimizer.rank': 8,
  'schedule.restart_warmup_steps': 1,
}


def set_small(config, fields) -> None:
  """Sets these fields by path, and of SMALL what their kinds have and they do not say.

  Another optimiser or schedule keeps what it shares with the one of before.
  """
  fields = dict(fields)
  for path in ('optimizer', 'schedule'):
    if path in fields:
      choose(config, path, fields.pop(path), keep=True)
  set_fields(config, fields)
  for path, value in SMALL.items():
    section, _, field = path.rpartition('.')
    node = config
    for part in section.split('.'):
      node = node.get(part) or {}
    if path not in fields and field in node:
      set_field(config, path, value)


def write_corpus(folder: pathlib.Path, words_of_documents: list[int]) -> pathlib.Path:
  """Text files with some structure to learn, of so many words each."""
  folder.mkdir()
  random = np.random.default_rng(0)
  words = ['alpha', 'beta', 'gamma', 'delta', 'return', 'import', 'self', 'None']
  for number, count in enumerate(words_of_documents):
    text = ' '.join(random.choice(words, count).tolist())
    (folder / f'{number:03d}.txt').write_text(text)
  return folder


def thinned(values, *kept):
  """To parametrise with: `make test` takes these alone, make conformance the others."""
  values = list(values)
  assert all(value in values for value in kept)
  in_full = lambda value: pytest.param(
    *(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.conformance
  )
  return [value if value in kept else in_full(value) for value in values]


@pytest.fixture
def plots():
  """Asked for by tests that look for the plots of a run."""


@pytest.fixture(autouse=True)
def no_plots(request, monkeypatch):
  """They take half a second a run, mostly for text, and runs are many."""
  if 'plots' not in request.fixturenames:
    monkeypatch.setattr('elas_jax.train.plot_run', lambda workdir: None)


@pytest.fixture(scope='session', autouse=True)
def shared_programs():
  """Runs whose programs are the same share them, also those of other tests."""
  from elas_jax import train
  from elas_jax.run import dry_run, evaluation, sharding, state, step, workdir

  def for_step(config):
    """Without what the loop alone looks at."""
    own = dataclasses.replace(config.train, tensorboard=False)
    none = {'restore': '', 'profile_steps': '', 'checkpoint': CheckpointConfig()}
    if config.traits.text:
      none['data'] = dataclasses.replace(config.data, source=SOURCES['python_source']())
    return dataclasses.replace(config, train=own, eval=EvalConfig(), **none)

  def for_start(config):
    """Without what is done in a step; an optimiser may start by its schedule, and
    objectives with what they keep."""
    own = TrainConfig(steps=config.train.steps, objectives=config.train.objectives)
    return dataclasses.replace(for_step(config), train=own)

  def for_evaluation(config):
    """Without what trains the model."""
    none = {'optimizer': OPTIMIZERS['adamw'](), 'schedule': SCHEDULES['constant']()}
    loop = {x.name: getattr(TrainConfig(), x.name) for x in dataclasses.fields(TrainConfig)}
    own = dataclasses.replace(config.train, **loop)  # the loss of its task stays
    return dataclasses.replace(for_step(config), train=own, **none)

  @functools.cache
  def step_of(traced, config, mesh, now):
    return step.jit_train_step(config, mesh, now)

  @functools.cache
  def start_of(config, mesh):
    return state.create_state(config, mesh)

  def jit_train_step(config, mesh, now=None):
    now = for_step(now) if now else None
    return step_of(step.train_step, for_step(config), mesh, now)

  eval_step = evaluation.eval_step

  def shared_eval_step(config, *arguments):
    return eval_step(for_evaluation(config), *arguments)

  def create_state(config, mesh):
    # Copied: a step takes the memory of the state that it is given.
    return jax.tree.map(jnp.copy, start_of(for_start(config), mesh))

  def make_mesh(config, devices=None):
    """Of one device, unless a test or its mesh asks for four: these take twice as long."""
    one = config.mesh == MeshConfig() and not FOUR_DEVICES
    return sharding.make_mesh(config, devices or (jax.devices()[:1] if one else None))

  with pytest.MonkeyPatch.context() as patch:
    for module in (train, workdir, dry_run):
      patch.setattr(module, 'make_mesh', make_mesh)
    patch.setattr(train, 'jit_train_step', jit_train_step)
    patch.setattr(train, 'create_state', create_state)
    patch.setattr(evaluation, 'eval_step', shared_eval_step)
    yield


FOUR_DEVICES = []  # not empty while runs take all four


@contextlib.contextmanager
def on_four_devices():
  """For fixtures of a wider scope than a test's, which four_devices comes too late for."""
  FOUR_DEVICES.append(True)
  try:
    yield
  finally:
    FOUR_DEVICES.pop()


@pytest.fixture
def four_devices():
  """Asked for by tests whose runs and commands are to take all devices."""
  with on_four_devices():
    yield


@pytest.fixture(scope='module', autouse=True)
def prepared_here():
  """Data are prepared in this process: to start one for them takes ten times as long."""
  with pytest.MonkeyPatch.context() as patch:
    prepare_here(patch)
    yield


def prepare_here(patch: pytest.MonkeyPatch) -> None:
  from elas_jax.data import blocks

  patch.setattr(blocks, '_write_in_subprocess', blocks.write)


@pytest.fixture
def make_config(tmp_path):
  """Builds a tiny Config: make_config(**{'model.linear.rank': 4}) overrides fields.

  Its places are relative to the test's own folder: what is compiled for a config is then
  that of all tests that make the same.
  """
  with contextlib.chdir(tmp_path):
    yield functools.partial(tiny_config, pathlib.Path())


@pytest.fixture
def corpus(tmp_path) -> pathlib.Path:
  """The folder of text files that make_config names."""
  return write_corpus(tmp_path / 'corpus', [80] * 40)


@pytest.fixture(scope='session')
def trained(tmp_path_factory) -> tuple[Config, pathlib.Path]:
  """(config, workdir) of a finished run on documents of different lengths. Read only."""
  from elas_jax.train import train

  folder = tmp_path_factory.mktemp('trained')
  write_corpus(folder / 'corpus', [1 + number % 8 for number in range(240)])
  ragged = {
    'data.protocol': 'document',
    'data.source.validation_share': 0.2,
    'eval.units': 0,
    'eval.measures': 'activations',
  }
  config = tiny_config(folder, **ragged)
  with pytest.MonkeyPatch.context() as patch:
    prepare_here(patch)  # this fixture comes before that of any module
    patch.setattr('elas_jax.train.plot_run', lambda workdir: None)
    train(config, folder / 'run')
  return config, folder / 'run'


@pytest.fixture(scope='session')
def golden() -> dict:
  """The recorded PyTorch LLaMA; tests/golden/record_llama.py made it."""
  with np.load(ROOT / 'tests/golden/llama.npz') as arrays:
    flat = {name: arrays[name] for name in arrays.files}
  weights = {}
  for name, value in flat.items():
    if name.startswith('weights/'):
      *parents, leaf = name.split('/')[1:]
      node = weights
      for parent in parents:
        node = node.setdefault(parent, {})
      node[leaf] = value
  return {'weights': weights} | {
    name: value for name, value in flat.items() if '/' not in name
  }


@pytest.fixture
def golden_model() -> dict:
  """Overrides for make_config that give the recorded model."""
  return {
    'model.vocab_size': 61,
    'model.width': 32,
    'model.layers': 2,
    'model.attention': 'gqa',
    'model.attention.heads': 4,
    'model.attention.kv_heads': 2,
    'model.feed_forward_width': 48,
    'model.linear': 'dense',
    'model.feed_forward': 'glu',
  }
