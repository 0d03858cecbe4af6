"""Measures on several devices, and of more runs of older versions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.run.measures import Measures
from elas_jax.run.sharding import make_mesh
from elas_jax.run.state import create_state
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.measures import MEASURES
from elas_jax.systems.mixers import MIXERS
from tests.conformance.hosts import batch, language
from tests.measure_test import check_old_run

ALL = tuple(kind() for kind in MEASURES.values())


class Rows:
  """Some rows as a split of data."""

  def __init__(self, rows):
    self._rows = rows

  def __len__(self):
    return len(self._rows['valid'])

  def read(self, numbers):
    return {name: x[np.asarray(numbers)] for name, x in self._rows.items()}


def measured(config, devices=1):
  """Of the start, and what changes with the parameters turned by one."""
  mesh = make_mesh(config, jax.devices()[:devices])
  with jax.set_mesh(mesh):
    variables = create_state(config, mesh).variables
    measures = Measures(config, Rows(batch(config)), mesh)
    before = measures.measure(config, 3, variables)
    assert measures.due(4) and not measures.due(5)
    turned = jax.tree.map(lambda x: jnp.roll(x, 1, -1), variables)
    return before, measures.change(config, turned)


@pytest.mark.conformance
def test_four_devices_equal_one():
  config = language(
    linear=LINEARS['low_rank'](rank=4),
    feed_forward=FEED_FORWARDS['relu2_two_four'](dense_steps=0),
    attention=MIXERS['mha'](heads=2),
  )
  config = dataclasses.replace(config, eval=dataclasses.replace(config.eval, measures=ALL))
  mesh = dataclasses.replace(config.mesh, data=1, fsdp=2, tensor=2)
  split = dataclasses.replace(config, mesh=mesh)
  for ours, theirs in zip(measured(split, 4), measured(config)):
    assert ours.keys() == theirs.keys() and ours
    for name, value in theirs.items():
      np.testing.assert_allclose(ours[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.conformance
@pytest.mark.parametrize(
  'name, path',
  [
    ('version_1/vit', 'network/layers/feed_forward/up'),
    ('version_0/quadratic', 'embedding'),
    ('version_0/sltrain', 'embedding'),
  ],
)
def test_more_runs_of_older_versions(name, path, tmp_path, monkeypatch):
  check_old_run(name, path, tmp_path, monkeypatch)
