"""What classifiers and networks of values share: their layers by name, and a base.

No config by itself: configs/images.py and configs/functions.py fill it in.
"""

from ml_collections import ConfigDict

from elas_jax.config.overrides import set_field
from elas_jax.configs import default

# MODEL -> what it sets. Grids and orders are the published ones (All-KAN).
LAYERS = {
  'mlp': {'model.linear': 'dense', 'model.activation': 'relu'},
  'quadratic': {
    'model.linear': 'quadratic',
    'model.activation': 'relu',
    'model.use_bias': True,
  },
  'gr_kan': {'model.linear': 'rational', 'model.use_bias': True},
  'bspline': {
    'model.linear': 'kan_bspline',
    'model.linear.grid': 5,
    'model.linear.data_norm': 'none',
  },
  'chebyshev': {'model.linear': 'kan_chebyshev', 'model.linear.order': 3},
  'polynomial': {'model.linear': 'kan_polynomial', 'model.linear.order': 3},
  'fourier': {'model.linear': 'kan_fourier', 'model.linear.grid': 5},
  'wavelet': {
    'model.linear': 'kan_wavelet',
    'model.linear.grid': 4,
    'model.linear.grid_min': -2.0,
    'model.linear.grid_max': 2.0,
  },
  'fast': {
    'model.linear': 'kan_fast',
    'model.linear.grid': 8,
    'model.linear.grid_min': -2.0,
    'model.linear.grid_max': 2.0,
  },
  'faster': {
    'model.linear': 'kan_faster',
    'model.linear.grid': 8,
    'model.linear.grid_min': -1.2,
    'model.linear.grid_max': 0.2,
  },
  'bsrbf': {
    'model.linear': 'kan_bsrbf',
    'model.linear.grid': 5,
    'model.linear.grid_min': -1.5,
    'model.linear.grid_max': 1.5,
  },
  'relu_kan': {'model.linear': 'kan_relu', 'model.linear.grid_min': 0.0},
  'af_kan': {'model.linear': 'kan_af', 'model.linear.grid_min': 0.0},
  'skan': {'model.linear': 'kan_skan'},
  's_kan': {'model.linear': 'kan_selectable', 'model.linear.grid': 5},
}


def base(task: str = 'classification') -> ConfigDict:
  """A stack of two layers on digits, the embedded set."""
  config = default.base(task)
  config.train.steps = 1500
  config.train.log_every = 100
  config.optimizer.learning_rate = 1e-3
  config.optimizer.b2 = 0.999
  config.optimizer.weight_decay = 1e-4
  config.optimizer.clip_norm = 0.0
  config.checkpoint.every = 500
  config.eval.every = 500
  config.eval.batch_size = 256
  return config


def set_layer(config: ConfigDict, layer: str) -> None:
  """Makes the layers those of a name of LAYERS."""
  for path, value in LAYERS[layer].items():
    set_field(config, path, value)
