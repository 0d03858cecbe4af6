"""Functions to fit and shapes to tell apart: TASK,MODEL.

  python -m elas_jax.train --config=configs/functions.py:bessel,bspline --workdir=runs/fit

TASK: a name of elas_jax/data/functions.py, drawn anew for every run from
data.source.draw_seed.
MODEL: a stack of a name of configs/rows.py:LAYERS.
Hardware: two CPU cores, about a minute. Expected: an RMSE in
experiments/results/tables/function_fitting.md, of a third of the steps.
"""

from ml_collections import ConfigDict

from elas_jax.config.overrides import choose
from elas_jax.configs import rows

# Inputs of each.
FUNCTIONS = {
  'bessel': 1,
  'exp_sin_square': 2,
  'product': 2,
  'mean_of_sines': 100,
  'sine_of_squares': 4,
  'runge': 1,
  'step': 1,
}
SHAPES = ('two_spirals', 'rings')
MODELS = sorted(rows.LAYERS)
# Published for other ranges of inputs, those of images and behind LayerNorm.
OTHER_GRIDS = ('relu_kan', 'af_kan', 'faster')


def get_config(arg: str = 'bessel,bspline') -> ConfigDict:
  task, _, model = arg.partition(',')
  if task not in (*FUNCTIONS, *SHAPES) or model not in MODELS:
    raise ValueError(
      f'--config=configs/functions.py:{arg}: must be TASK,MODEL with TASK one of '
      f'{", ".join((*FUNCTIONS, *SHAPES))} and MODEL one of {", ".join(MODELS)}'
    )
  shape = task in SHAPES
  config = rows.base('classification' if shape else 'regression')
  rows.set_layer(config, model)
  choose(config, 'data.source', 'shape' if shape else 'function', name=task)
  config.model.input_shape = (2 if shape else FUNCTIONS[task],)
  config.model.outputs = 2 if shape else 1
  if 'data_norm' in config.model.linear:
    config.model.linear.data_norm = 'none'  # LayerNorm would leave nothing of one input
  if model in OTHER_GRIDS:
    config.model.linear.grid_min, config.model.linear.grid_max = -1.0, 1.0
  if config.model.activation.kind != 'none':
    choose(config, 'model.activation', 'silu')  # most of these functions are smooth
  if 'groups' in config.model.linear:
    config.model.linear.groups = 1
  config.model.use_bias = True
  config.model.width, config.model.depth = 16, 2
  config.data.batch_size = 128
  config.train.steps = 3000
  config.optimizer.learning_rate = 5e-3
  config.optimizer.weight_decay = 0.0
  return config
