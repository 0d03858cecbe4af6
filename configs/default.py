"""The embedded default: a small low-rank model with squared ReLU on Python's own source.

  python -m elas_jax.train --config=configs/default.py --workdir=runs/default
  python -m elas_jax.train --config=configs/default.py:elas --workdir=runs/elas

With a METHOD of configs/methods.py behind the colon it is that method at this size.

Data: the standard library of the running interpreter, about 12 MB of text, as bytes.
Hardware: two CPU cores, below 3 GB of memory; two to three minutes if they are free, up
to five where others use them too.
Expected: validation about 2.29 bits per byte.

All fields of every config are here, with their defaults; other files change some. The
comments and checks are in elas_jax/config/config.py.
"""

from ml_collections import ConfigDict

from elas_jax.configs import methods

# F of SwiGLU with the parameters of the squared ReLU's: 2/3 of that.
SWIGLU_WIDTH = 512
# Norms, biases (b_g of quadratic layers among them) and rationals are not pulled to 0.
DECAY_RULES = (
  (r'(norm[^/]*/scale|bias(_[rgb])?|numerator|denominator)$', 0.0),
  ('.*', 1.0),
)
KAN = {
  'grid': 3,
  'order': 3,
  'grid_min': -1.0,
  'grid_max': 1.0,
  'activation': 'silu',
  'function': 'quad1',
  'reduction': 'global_attn',
  'combine': 'sum',
  'function_norm': 'example',
  'data_norm': 'layer',
  'polynomial': 'legendre',
  'wavelet': 'mexican_hat',
  'edge': 'arctan',
  'pool': 'bspline,chebyshev,wavelet,fast',
  'selection': 'layer',
  'phase': 'full',
  'top_k': 2,
  'init_scale': 1.0,
  'param_dtype': 'float32',
}


def get_config(arg: str = '') -> ConfigDict:
  config = base()
  if not arg:
    return config
  if arg not in methods.METHODS:
    raise ValueError(
      f'--config=configs/default.py:{arg}: must be METHOD, one of '
      f'{", ".join(methods.METHODS)}'
    )
  config.model.linear, config.model.feed_forward = 'dense', 'swiglu'
  methods.apply(config, arg)
  if not methods.squared_relu(arg):
    config.model.feed_forward_width = SWIGLU_WIDTH
  # Periods that suit a run of so few steps.
  steps = config.train.get_ref('steps')
  config.model.two_four_dense_steps = steps // 10
  if arg in ('loro', 'loro_relu2', 'elas'):
    config.optimizer.learning_rate = 8e-3  # lazy steps take R / D of it
    config.optimizer.exact_every = steps // 5
  if arg == 'galore':
    config.optimizer.projection_every = steps // 10
  if arg == 'relora':
    config.optimizer.merge_every = steps // 5
    config.optimizer.restart_every = steps // 5
    config.optimizer.restart_warmup_steps = 10
  return config


def base() -> ConfigDict:
  config = ConfigDict()
  config.task = 'language'
  config.seed = 0
  config.restore = ''
  config.profile_steps = ''

  config.model = ConfigDict()
  config.model.vocab_size = 257  # bytes and the end of a document
  config.model.width = 192
  config.model.layers = 4
  config.model.heads = 4
  config.model.kv_heads = 4
  config.model.feed_forward_width = 768
  config.model.linear = 'low_rank'
  config.model.rank = 48
  config.model.factor_init = 'xavier'
  config.model.quadratic_form = 'full'
  config.model.quadratic_start = 'relinear'
  config.model.kan = ConfigDict(KAN)
  config.model.alpha = 32.0
  config.model.gamma = 0.5
  config.model.sparse_share = 0.03
  config.model.feed_forward = 'relu2'
  config.model.rational_groups = 8
  config.model.two_four_rule = 'top2'
  config.model.two_four_backward = 'exact'
  config.model.two_four_dense_steps = 0
  config.model.two_four_refresh = 10
  config.model.two_four_implementation = 'auto'
  config.model.attention = 'mha'
  config.model.rope_base = 10000.0
  config.model.norm_epsilon = 1e-6
  config.model.init_std = 0.02
  config.model.tied_head = False
  config.model.unroll = 4
  config.model.remat = 'none'
  config.model.param_dtype = 'float32'
  config.model.compute_dtype = 'float32'

  config.data = ConfigDict()
  config.data.source = 'python_source'
  config.data.path = ''
  config.data.validation_path = ''
  config.data.validation_share = 0.05
  config.data.max_bad_share = 0.01
  config.data.tokenizer = 'bytes'
  config.data.protocol = 'packed'
  config.data.sequence_length = 128
  config.data.batch_size = 16
  config.data.cache_dir = '~/.cache/elas_jax'
  config.data.processes = 0
  config.data.read_threads = 2
  config.data.prefetch = 8
  config.data.accept_changed = False

  config.train = ConfigDict()
  config.train.steps = 700
  config.train.accumulation = 1
  config.train.z_loss = 0.0
  config.train.log_every = 50
  config.train.tensorboard = False
  config.train.compilation_cache = '~/.cache/elas_jax/compiled'

  # Phases follow an override of train.steps.
  steps = config.train.get_ref('steps')
  config.optimizer = ConfigDict()
  config.optimizer.name = 'adamw'
  config.optimizer.exact_every = 500
  config.optimizer.lazy_scale = 0.25
  config.optimizer.projection_rank = 48
  config.optimizer.projection_every = 200
  config.optimizer.projection_scale = 0.25
  config.optimizer.merge_every = 0
  config.optimizer.learning_rate = 2e-3
  config.optimizer.schedule = 'cosine'
  config.optimizer.warmup_steps = steps // 20
  config.optimizer.warmup_fraction = 0.1
  config.optimizer.decay_steps = steps // 5
  config.optimizer.decay_shape = 'linear'
  config.optimizer.constant_steps = steps // 10
  config.optimizer.final_fraction = 0.05
  config.optimizer.restart_every = 500
  config.optimizer.restart_warmup_steps = 5
  config.optimizer.relinear = 'none'
  config.optimizer.relinear_g = 1e-4
  config.optimizer.relinear_b = 1e-4
  config.optimizer.b1 = 0.9
  config.optimizer.b2 = 0.95
  config.optimizer.epsilon = 1e-8
  config.optimizer.weight_decay = 0.1
  config.optimizer.decay_rules = DECAY_RULES
  config.optimizer.clip_norm = 1.0

  config.mesh = ConfigDict()
  config.mesh.data = -1
  config.mesh.fsdp = 1
  config.mesh.tensor = 1

  config.checkpoint = ConfigDict()
  config.checkpoint.every = 350
  config.checkpoint.keep_latest = 2
  config.checkpoint.keep_best = 1

  config.eval = ConfigDict()
  config.eval.every = 350
  config.eval.tokens = 0
  config.eval.batch_size = 32
  config.eval.prompt = 'def '
  # With a short prompt no longer than L: 120 of 128.
  config.eval.sample_tokens = config.data.get_ref('sequence_length') * 15 // 16
  return config
