"""Every classifier or regressor learns, has its published size, and knows its data."""

import itertools

import pytest

from configs import functions, images
from elas_jax.run.state import abstract_variables, parameter_count
from tests.conftest import thinned
from tests.tasks.networks import config_of, trained

TASKS = (*functions.FUNCTIONS, *functions.SHAPES)
# At depth 1 the deeper residual networks are the shallowest; fashion_mnist has mnist's net.
SHALLOW = [x for x in images.models() if not x.endswith(('32', '44', '56'))]
SETS = [name for name in images.DATASETS if name != 'fashion_mnist']
PAIRS = [
  (file, ','.join(pair))
  for file, sets, models in (
    ('images', SETS, SHALLOW),
    ('functions', TASKS, functions.MODELS),
  )
  for pair in itertools.product(sets, models)
]
# Of convolutions by patches, which are the layers themselves, one of each sort.
SOME = [x for x in SHALLOW if not x.startswith('conv_')]
SOME += ['conv_mlp', 'conv_quadratic', 'conv_bspline', 'conv_af_kan', 'conv_s_kan']


@pytest.mark.parametrize(('file', 'argument'), PAIRS)
@pytest.mark.pairs
def test_every_pair_trains(file, argument):
  own = file == 'functions' or argument.partition(',')[0] in images.OWN
  trained(file, argument, own_rows=own)


@pytest.mark.conformance
# Every layer on one set, and every set with one stack and one ConvNet.
@pytest.mark.parametrize(
  'dataset, model',
  list(
    itertools.product(
      ['mnist', 'mnist1d', 'cifar10', 'cifar100'], ['gr_kan', 'conv_quadratic']
    )
  ),
)
def test_every_set_of_images_trains(dataset, model):
  trained('images', f'{dataset},{model}', own_rows=False)


# One of each architecture; the layers take a step of training in tests/conformance.
@pytest.mark.parametrize('model', thinned(SOME, 'mlp'))
def test_every_model_learns_a_batch_of_digits(model):
  trained('images', f'digits,{model}')


@pytest.mark.parametrize(
  ('model', 'count'),
  [
    ('mnist,mlp', 52_512),
    ('mnist,af_kan', 52_552),
    ('mnist,relu_kan', 316_842),
    ('mnist,fast', 459_114),
    ('mnist,bsrbf', 459_040),
    ('mnist,bspline', 508_160),
    ('mnist,faster', 408_224),
    ('mnist,chebyshev', 204_960),
    ('mnist1d,linear', 410),
    ('mnist1d,mlp_100_100', 15_210),
  ],
)
def test_parameters_are_the_published_ones(model, count):
  config = config_of('images', model)
  assert parameter_count(abstract_variables(config)['params']) == count


def test_quadratic_layers_have_three_times_the_parameters():
  count = lambda model, **flags: parameter_count(
    abstract_variables(
      config_of('images', f'mnist,{model}', **{'model.norm': 'none'} | flags)
    )['params']
  )
  assert count('quadratic') == 3 * count('mlp', **{'model.use_bias': True})
