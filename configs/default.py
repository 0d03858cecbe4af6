"""The embedded default: a small low-rank model with squared ReLU on Python's own source.

  python -m elas_jax.train --config=configs/default.py --workdir=runs/default
  python -m elas_jax.train --config=configs/default.py:elas --workdir=runs/elas

With a METHOD of configs/methods.py behind the colon it is that method at this size.

Data: the standard library of the running interpreter, about 12 MB of text, as bytes.
Hardware: two CPU cores, below 3 GB of memory; two to three minutes if they are free, up
to five where others use them too.
Expected: validation about 2.28 bits per byte.

The fields and their defaults are in elas_jax/config/config.py and, of what is one of
several kinds, in elas_jax/systems; `python -m elas_jax.train --help=SECTION` prints them.
"""

from ml_collections import ConfigDict

from elas_jax.config.config import defaults
from elas_jax.config.overrides import choose, set_field
from elas_jax.configs import methods

RANK = 48
# F of SwiGLU with the parameters of the squared ReLU's: 2/3 of that.
SWIGLU_WIDTH = 512


def get_config(arg: str = '') -> ConfigDict:
  config = base()
  if not arg:
    return config
  if arg not in methods.METHODS:
    raise ValueError(
      f'--config=configs/default.py:{arg}: must be METHOD, one of '
      f'{", ".join(methods.METHODS)}'
    )
  choose(config, 'model.linear', 'dense')
  choose(config, 'model.feed_forward', 'glu')
  methods.apply(config, arg, RANK)
  if not methods.squared_relu(arg):
    config.model.feed_forward_width = SWIGLU_WIDTH
  # Periods that suit a run of so few steps.
  steps = config.train.get_ref('steps')
  if config.model.feed_forward.kind == 'relu2_two_four':
    set_field(config, 'model.feed_forward.dense_steps', steps // 10)
  if config.optimizer.kind == 'loro':
    config.optimizer.learning_rate = 8e-3  # lazy steps take R / D of it
    config.optimizer.get_ref('exact_every').set(steps // 5, type_safe=False)
  if config.optimizer.kind == 'galore':
    set_field(config, 'optimizer.every', steps // 10)
  if config.schedule.kind == 'cosine_restarts':
    set_field(config, 'model.linear.merge_every', steps // 5)
    set_field(config, 'schedule.restart_every', steps // 5)
    set_field(config, 'schedule.restart_warmup_steps', 10)
  return config


def base(task: str = 'language') -> ConfigDict:
  """All fields: the defaults, and an optimiser and a schedule for small models."""
  config = ConfigDict(defaults(task))
  steps = config.train.get_ref('steps')  # phases follow an override of it
  choose(
    config,
    'optimizer',
    'adamw',
    learning_rate=2e-3,
    b1=0.9,
    b2=0.95,
    epsilon=1e-8,
    weight_decay=0.1,
    clip_norm=1.0,
  )
  choose(
    config,
    'schedule',
    'cosine',
    warmup_steps=steps // 20,
    warmup_fraction=0.1,
    final_fraction=0.05,
  )
  if task == 'language':
    set_field(config, 'eval.measures', 'activations')  # what 2:4 drops, where it could
    config.eval.prompt = 'def '
    # With a short prompt no longer than L: 120 of 128.
    config.eval.sample_tokens = config.data.get_ref('sequence_length') * 15 // 16
  return config
