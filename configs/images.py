"""Images and their classes: DATASET,MODEL.

  python -m elas_jax.train --config=configs/images.py:digits,af_kan --workdir=runs/digits
  python -m elas_jax.train --config=configs/images.py:cifar10,quadratic_resnet20 \
      --config.data.source.data_dir=TFDS_FOLDER --workdir=runs/qresnet

DATASET: digits (8 x 8, of scikit-learn), or mnist, fashion_mnist, cifar10, cifar100,
prepared by TFDS. MODEL: a stack of a name of configs/rows.py:LAYERS, one of MODELS, or
such a name behind 'conv_' (digits: conv_quadratic).
Hardware: digits two CPU cores, below two minutes. Expected: digits,af_kan ends at 97.8 %
(seed 0); not yet run here on TFDS sets.
"""

from ml_collections import ConfigDict

from elas_jax.config.overrides import choose, set_field
from elas_jax.configs import rows

# Input shape and classes.
DATASETS = {
  'digits': ((8, 8, 1), 10),
  'mnist': ((28, 28, 1), 10),
  'fashion_mnist': ((28, 28, 1), 10),
  'cifar10': ((32, 32, 3), 10),
  'cifar100': ((32, 32, 3), 100),
}
RESNET = {
  'model.architecture': 'resnet',
  'model.width': 16,
  'model.norm': 'batch',
  'model.activation': 'relu',
}
VIT = {
  'model.architecture': 'vit',
  'model.width': 64,
  'model.depth': 4,
  'model.use_bias': True,
  'model.norm': 'layer',
  'model.norm.epsilon': 1e-6,
}
MODELS = {
  **{f'resnet{6 * n + 2}': RESNET | {'model.depth': n} for n in (3, 5, 7, 9)},
  'vit': VIT | {'model.architecture.feed_forward.activation': 'gelu'},
  'kat': VIT
  | {
    'model.linear': 'rational',
    'model.architecture.linear_in': 'feed_forward',
    'model.architecture.feed_forward.activation': 'none',
  },
}
CONVOLUTIONAL = sorted(set(rows.LAYERS) - {'gr_kan'})


def get_config(arg: str = 'digits,af_kan') -> ConfigDict:
  dataset, _, model = arg.partition(',')
  if dataset not in DATASETS or model not in models():
    raise ValueError(
      f'--config=configs/images.py:{arg}: must be DATASET,MODEL with DATASET one of '
      f'{", ".join(DATASETS)} and MODEL one of {", ".join(models())}'
    )
  config = rows.base()
  if dataset == 'digits':
    choose(config, 'data.source', 'digits')
  else:
    choose(config, 'data.source', 'tfds_images', name=dataset)
  config.model.input_shape, config.model.outputs = DATASETS[dataset]
  _set_model(config, model)
  if dataset == 'digits':
    if config.model.architecture.kind == 'vit':
      config.model.architecture.patch = 2
    if config.model.architecture.kind == 'stack':
      config.optimizer.learning_rate = 3e-3
  else:
    _published(config, dataset)
  return config


def models() -> list[str]:
  residual = [name for name in MODELS if name.startswith('resnet')]
  return [
    *rows.LAYERS,
    *(f'conv_{name}' for name in CONVOLUTIONAL),
    *MODELS,
    *(f'quadratic_{name}' for name in residual),
  ]


def _set_model(config: ConfigDict, model: str) -> None:
  if model in rows.LAYERS:
    rows.set_layer(config, model)
    plain = config.model.activation.kind != 'none'  # and no KAN, which has its own
    choose(config, 'model.norm', 'layer' if plain else 'none')
    return
  if model.startswith('conv_'):
    rows.set_layer(config, model.removeprefix('conv_'))
    choose(config, 'model.architecture', 'convnet')
    choose(config, 'model.norm', 'batch')
    config.model.width, config.model.depth = 16, 3
    return
  quadratic = model.startswith('quadratic_')
  if quadratic:
    rows.set_layer(config, 'quadratic')
  for path, value in MODELS[model.removeprefix('quadratic_')].items():
    set_field(config, path, value)
  if config.model.architecture.kind != 'resnet':
    return
  # ReLinear, section 1 of its repository's recipe: the rate of (g, b) is 1e-5.
  choose(config, 'optimizer', 'sgd', keep=True, learning_rate=0.1, momentum=0.9)
  if quadratic:
    config.model.linear.relinear = 'gradients'


def _published(config: ConfigDict, dataset: str) -> None:
  """Sets of TFDS: batch, epochs and augmentation of the published recipes."""
  if dataset.startswith('cifar'):
    config.data.batch_size, config.data.augment = 128, 'flip_crop'
    config.train.steps = 200 * 50_000 // 128
  else:
    config.train.steps = (25 if dataset == 'mnist' else 35) * 60_000 // 64
  config.train.log_every = 500
  config.checkpoint.every = config.eval.every = 5_000
