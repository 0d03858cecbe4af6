"""The methods of the ELAS table: METHOD -> what it sets beside size, data and run.

A dict of overrides each, the published recipe at 60m to 1b where one is known; fields that
follow the size (rank, lazy_scale, learning rates by size) are filled in by `apply`.
"""

from ml_collections import ConfigDict

from elas_jax.config.overrides import at_most, choose, set_field

LOW_RANK = {'model.linear': 'low_rank'}
RELU2 = {'model.feed_forward': 'mlp'}
# LORO, ICLR 2025: lazy steps of R / D, all moments reset at each exact step, and 5 steps
# of re-warm-up after most; a cosine whose peak is as long after the warm-up as that takes.
LORO = LOW_RANK | {
  'optimizer': 'loro',
  'schedule': 'displaced_cosine_restarts',
  'schedule.restart_warmup_steps': 5,
}
TWO_FOUR = {
  'model.feed_forward': 'relu2_two_four',
  'model.feed_forward.dense_steps': 1_000,
}
LORA = {'model.linear': 'lora', 'model.linear.alpha': 32.0}

METHODS = {
  # dense weights, SwiGLU, AdamW
  'full': {},
  # every linear map of attention and feed-forward is W = A B; AdamW
  'low_rank': LOW_RANK,
  # the same with the ungated squared ReLU instead of SwiGLU: a control for ELAS
  'low_rank_relu2': LOW_RANK | RELU2,
  # frozen random weights plus trained factors (arXiv 2106.09685)
  'lora': LORA,
  # lora whose factors are merged and started anew (arXiv 2307.05695), from the first step:
  # without the dense warm start of the paper
  'relora': LORA
  | {
    'model.linear.merge_every': 5_000,
    'schedule': 'cosine_restarts',
    'schedule.restart_every': 5_000,
    'schedule.restart_warmup_steps': 100,
  },
  # dense weights, Adam's moments of projected gradients (arXiv 2403.03507)
  'galore': {'optimizer': 'galore'},
  # silu between the factors (arXiv 2502.10940), and remat that keeps only what is R wide
  'cola': {'model.linear': 'cola', 'optimizer.weight_decay': 0.01},
  'cola_m': {
    'model.linear': 'cola',
    'model.remat': 'bottleneck',
    'optimizer.weight_decay': 0.01,
  },
  # low rank plus fixed random sparse entries (arXiv 2406.02214)
  'sltrain': {'model.linear': 'sltrain', 'model.linear.sparse_share': 0.03},
  # low rank plus some dense input columns (LOST)
  'lost': {
    'model.linear': 'lost',
    'model.linear.gamma': 0.5,
    'model.linear.sparse_share': 0.05,
  },
  # Riemannian steps on the factors (LORO, ICLR 2025), and its squared-ReLU control
  'loro': LORO,
  'loro_relu2': LORO | RELU2,
  # squared ReLU pruned to 2:4 (arXiv 2605.03667): with LORO as published, and with AdamW
  'elas': LORO | TWO_FOUR,
  'elas_adamw': LOW_RANK | TWO_FOUR,
}


def apply(config: ConfigDict, method: str, rank: int) -> None:
  """Sets the fields of a method in a config of dense maps and SwiGLU whose size is set.

  What its optimiser and schedule share with those of before (learning rate, ...) stays.
  """
  for path, value in METHODS[method].items():
    if path in ('optimizer', 'schedule'):
      choose(config, path, value, keep=True)
    else:
      set_field(config, path, value)
  if 'rank' in config.model.linear:
    config.model.linear.rank = rank
  if 'rank' in config.optimizer:
    config.optimizer.rank = rank
  if config.optimizer.kind == 'loro':
    ratio = config.model.linear.get_ref('rank') / config.model.get_ref('width')
    set_field(config, 'optimizer.lazy_scale', ratio)
    # Adam starts anew after each exact step, and so does the rate, but for the schedule's
    # displacement, by the length of the warm-up.
    restart = config.optimizer.get_ref('exact_every') + 0  # a reference of its own
    set_field(config, 'schedule.restart_every', restart)
    warmup = config.schedule.get_ref('warmup_steps')
    decay = config.train.get_ref('steps') - 2 * warmup
    set_field(config, 'schedule.decay_steps', decay)
  _fit_restarts(config)


def _fit_restarts(config: ConfigDict) -> None:
  """Re-warm-ups end before the next restart, also where few steps lie between two."""
  if 'restart_every' in config.schedule:
    last = config.schedule.get_ref('restart_every') - 1
    length = at_most(config.schedule.restart_warmup_steps, last)
    set_field(config, 'schedule.restart_warmup_steps', length)


def check(method: str, given: str) -> None:
  """Refuses a method that there is not; `given` is the whole value of --config."""
  if method not in METHODS:
    raise ValueError(f'--config={given}: must be METHOD, one of {", ".join(METHODS)}')


def apply_short(
  config: ConfigDict, method: str, *, rank: int, swiglu_width: int, relu2_width: int
) -> None:
  """The same for a run of a few hundred or thousand steps: all periods are shares of it."""
  choose(config, 'model.linear', 'dense')
  choose(config, 'model.feed_forward', 'glu')
  apply(config, method, rank)
  width = relu2_width if squared_relu(method) else swiglu_width
  config.model.feed_forward_width = width
  if config.model.feed_forward.kind == 'relu2_two_four':
    set_field(config, 'model.feed_forward.dense_steps', 0.1)
  if config.optimizer.kind == 'loro':
    config.optimizer.learning_rate = 1.6e-2  # lazy steps take R / D of it
    set_field(config, 'optimizer.exact_every', 0.2)
  if config.optimizer.kind == 'galore':
    set_field(config, 'optimizer.every', 0.1)
  if config.schedule.kind == 'cosine_restarts':
    set_field(config, 'model.linear.merge_every', 0.2)
    set_field(config, 'schedule.restart_every', 0.2)
    set_field(config, 'schedule.restart_warmup_steps', 10)
    _fit_restarts(config)


def squared_relu(method: str) -> bool:
  """Whether the method's feed-forward is ungated, so that F has another size."""
  return METHODS[method].get('model.feed_forward') in ('mlp', 'relu2_two_four')
