"""configs/plm.py: the published model of 1.8b, by count and shape, and its phases."""

import math

import jax
import pytest
from jax.sharding import AbstractMesh

from configs import plm
from elas_jax.config.parsing import parse
from elas_jax.run.optimizer import learning_rate
from elas_jax.run.sharding import state_shardings
from elas_jax.run.state import abstract_variables, parameter_count


def test_parameters_are_those_of_the_published_model():
  config = parse(plm.get_config('1.8b'))
  # By the published sizes, with the norms of a layer, of its latent and of the head.
  D, F, V, N, H = 2048, 8192, 151_936, 32, 16
  attention = D * H * (128 + 64) + D * (512 + 64) + 512 * H * (128 + 128) + H * 128 * D
  layer = attention + 2 * D * F + 2 * D + 512
  shapes = abstract_variables(config)['params']
  assert parameter_count(shapes) == V * D + N * layer + D == 1_825_458_176
  assert not jax.tree.leaves(abstract_variables(config)['buffers'])
  model = config.model
  assert (model.norm.epsilon, model.position.base, model.init_std) == (1e-6, 100_000, 0.02)
  assert model.tied_head and config.data.sequence_length == 4096


@pytest.mark.parametrize('sizes', [{'fsdp': 8}, {'fsdp': 4, 'tensor': 2}])
def test_eight_devices_share_the_state_evenly(sizes):
  """By shapes alone; Adam's moments lie as the parameters do."""
  config = parse(plm.get_config('1.8b'))
  names = {'data': 1, 'fsdp': 1, 'tensor': 1} | sizes
  mesh = AbstractMesh(tuple(names.values()), tuple(names))
  abstract = abstract_variables(config)['params']
  shardings = state_shardings(config, mesh, abstract)
  own = lambda x, sharding: math.prod(sharding.shard_shape(x.shape))
  sizes = jax.tree.leaves(jax.tree.map(own, abstract, shardings))
  assert sum(sizes) * 8 <= 1.01 * parameter_count(abstract)


def test_phases_begin_where_the_rate_changes():
  for size, starts in (('tiny', [700]), ('1.8b', [413_000, 531_000])):
    config = parse(plm.get_config(size))
    phases = config.data.source.mixed
    assert [phase.start for phase in phases[1:]] == starts
    rate, peak = learning_rate(config), config.optimizer.learning_rate
    assert rate(starts[0]) == pytest.approx(peak)
    assert rate(starts[0] + 1) < peak
    if starts[1:]:
      assert rate(starts[1]) == pytest.approx(0.1 * peak) == rate(config.train.steps)
      assert rate(starts[1] - 1) > rate(starts[1])
