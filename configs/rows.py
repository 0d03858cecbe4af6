"""What the networks on rows share: all their fields, with their defaults.

No config by itself: configs/images.py and configs/functions.py fill it in.
"""

from ml_collections import ConfigDict

from elas_jax.configs import default

# Kind of layer -> what it sets. Grids and orders are the published ones (All-KAN).
LAYERS = {
  'mlp': {'layer': 'dense', 'activation': 'relu'},
  'quadratic': {'layer': 'quadratic', 'activation': 'relu', 'use_bias': True},
  'gr_kan': {'layer': 'rational', 'use_bias': True},
  'bspline': {'layer': 'bspline', 'kan.grid': 5, 'kan.data_norm': 'none'},
  'chebyshev': {'layer': 'chebyshev', 'kan.order': 3},
  'polynomial': {'layer': 'polynomial', 'kan.order': 3},
  'fourier': {'layer': 'fourier', 'kan.grid': 5},
  'wavelet': {'layer': 'wavelet', 'kan.grid': 4, 'kan.grid_min': -2.0, 'kan.grid_max': 2.0},
  'fast': {'layer': 'fast', 'kan.grid': 8, 'kan.grid_min': -2.0, 'kan.grid_max': 2.0},
  'faster': {'layer': 'faster', 'kan.grid': 8, 'kan.grid_min': -1.2, 'kan.grid_max': 0.2},
  'bsrbf': {'layer': 'bsrbf', 'kan.grid': 5, 'kan.grid_min': -1.5, 'kan.grid_max': 1.5},
  'relu_kan': {'layer': 'relu', 'kan.grid_min': 0.0},
  'af_kan': {'layer': 'af', 'kan.grid_min': 0.0},
  'skan': {'layer': 'skan'},
  's_kan': {'layer': 'selectable', 'kan.grid': 5},
}


def base() -> ConfigDict:
  """A stack of two layers on digits, the embedded set."""
  config = default.base()
  config.task = 'classification'

  config.model = ConfigDict()
  config.model.architecture = 'stack'
  config.model.input_shape = (8, 8, 1)
  config.model.outputs = 10
  config.model.layer = 'dense'
  config.model.width = 64
  config.model.depth = 1
  config.model.activation = 'none'  # KANs need none
  config.model.norm = 'none'
  config.model.use_bias = False
  config.model.init = 'lecun'
  config.model.quadratic_form = 'full'
  config.model.quadratic_start = 'relinear'
  config.model.rational_groups = 8
  config.model.patch = 4
  config.model.heads = 4
  config.model.label_smoothing = 0.0
  config.model.kan = ConfigDict(default.KAN)

  config.data = ConfigDict()
  config.data.source = 'digits'
  config.data.path = ''
  config.data.validation_share = 0.2
  config.data.examples = 4000
  config.data.noise = 0.0
  config.data.draw_seed = 0
  config.data.augment = 'none'
  config.data.batch_size = 64
  config.data.cache_dir = '~/.cache/elas_jax'
  config.data.read_threads = 1
  config.data.prefetch = 8
  config.data.accept_changed = False

  config.train.steps = 1500
  config.train.log_every = 100
  steps = config.train.get_ref('steps')
  config.optimizer.learning_rate = 1e-3
  config.optimizer.b2 = 0.999
  config.optimizer.warmup_steps = steps // 20
  config.optimizer.weight_decay = 1e-4
  config.optimizer.clip_norm = 0.0
  config.checkpoint.every = 500
  config.eval.every = 500
  config.eval.batch_size = 256
  config.eval.sample_tokens = 0
  return config


def set_layer(config: ConfigDict, layer: str) -> None:
  """Makes the layers those of a name of LAYERS."""
  for name, value in LAYERS[layer].items():
    *sections, field = name.split('.')
    section = config.model
    for part in sections:
      section = section[part]
    section[field] = value
