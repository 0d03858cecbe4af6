"""The embedded default: a small low-rank model with squared ReLU on Python's own source.

  python -m elas_jax.train --config=configs/default.py --workdir=runs/default
  python -m elas_jax.train --config=configs/default.py:elas --workdir=runs/elas

With a METHOD of configs/methods.py behind the colon it is that method at this size.

Data: the standard library of the running interpreter, about 12 MB of text, as bytes.
Hardware: two CPU cores, below 3 GB of memory; three minutes if they are free.
Expected: validation 1.98 bits per byte with elas, which `make train` runs; without pruning
1.97 (loro_relu2), in a tenth less time, and by AdamW 2.00 (low_rank_relu2).

The fields and their defaults are in elas_jax/config/config.py and, of what is one of
several kinds, in elas_jax/systems; `python -m elas_jax.train --help=SECTION` prints them.
"""

from ml_collections import ConfigDict

from elas_jax.config.config import defaults
from elas_jax.config.overrides import choose, set_field
from elas_jax.configs import methods


def get_config(arg: str = '') -> ConfigDict:
  config = base()
  model = config.model
  model.width, model.feed_forward_width, model.linear.rank = 128, 512, 32
  config.data.batch_size = 8
  config.train.steps = 3_000
  config.checkpoint.every = (config.train.get_ref('steps') + 1) // 2
  config.eval.every = (config.train.get_ref('steps') + 1) // 2
  if arg:
    methods.check(arg, f'configs/default.py:{arg}')
    # F of SwiGLU with the parameters of the squared ReLU's: 2/3 of that.
    methods.apply_short(config, arg, rank=32, swiglu_width=344, relu2_width=512)
    if config.optimizer.kind == 'loro':
      config.optimizer.learning_rate = 8e-3
  return config


def base(task: str = 'language') -> ConfigDict:
  """All fields: the defaults, and an optimiser and a schedule for small models."""
  config, language = ConfigDict(defaults(task)), task == 'language'
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
    **({'embedding_rate': 1.6e-2} if language else {}),
  )
  choose(
    config,
    'schedule',
    'cosine',
    warmup_steps=0.1 if language else 0.05,
    warmup_fraction=0.1,
    final_fraction=0.05,
  )
  if language:
    set_field(config, 'eval.measures', 'activations')  # what 2:4 drops, where it could
    config.eval.prompt = 'def '
    # With a short prompt no longer than L: 120 of 128.
    config.eval.sample_tokens = config.data.get_ref('sequence_length') * 15 // 16
  return config
