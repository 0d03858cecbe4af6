"""Schedules against their formulas, written out in NumPy."""

import dataclasses
import math

import numpy as np
import pytest

from configs import default
from elas_jax.config import parse
from elas_jax.errors import UserError
from elas_jax.optim.schedules import SCHEDULES

STEPS = 100


def config_of(**fields):
  base = dataclasses.replace(
    parse(default.get_config()).optimizer,
    learning_rate=2.0,
    warmup_steps=10,
    warmup_fraction=0.1,
    decay_steps=30,
    constant_steps=20,
    final_fraction=0.05,
    restart_every=25,
    restart_warmup_steps=5,
  )
  return dataclasses.replace(base, **fields)


def rates(name, **fields):
  schedule = SCHEDULES[name](config_of(**fields), STEPS)
  return np.array([float(schedule(step)) for step in range(STEPS + 1)])


@pytest.mark.parametrize('name', SCHEDULES)
def test_warmup_is_linear_from_its_fraction(name):
  expected = 2.0 * (0.1 + 0.9 * np.arange(11) / 10)
  np.testing.assert_allclose(rates(name)[:11], expected, rtol=1e-6)
  assert rates(name, warmup_steps=0)[0] == 2.0


def test_constant():
  assert (rates('constant')[10:] == 2.0).all()


def test_cosine():
  u = np.arange(91) / 90
  expected = 2.0 * (0.05 + 0.95 * 0.5 * (1 + np.cos(math.pi * u)))
  np.testing.assert_allclose(rates('cosine')[10:], expected, rtol=1e-5)


WAYS_DOWN = {
  'linear': lambda u: u,
  'cosine': lambda u: 0.5 * (1 - np.cos(np.pi * u)),
  'one_minus_sqrt': np.sqrt,
}


@pytest.mark.parametrize('shape', [*WAYS_DOWN, 'exponential'])
def test_wsd_and_wsdc(shape):
  u = np.arange(31) / 30
  if shape == 'exponential':
    down = 2.0 * 0.05**u
  else:
    down = 2.0 + (0.1 - 2.0) * WAYS_DOWN[shape](u)
  wsd = rates('wsd', decay_shape=shape)
  assert (wsd[10:70] == 2.0).all()
  np.testing.assert_allclose(wsd[70:], down, rtol=1e-5)
  wsdc = rates('wsdc', decay_shape=shape)
  assert (wsdc[10:50] == 2.0).all()
  np.testing.assert_allclose(wsdc[50:81], down, rtol=1e-5)
  np.testing.assert_allclose(wsdc[80:], 0.1, rtol=1e-5)


def test_cosine_restarts():
  plain, restarted = rates('cosine'), rates('cosine_restarts')
  expected = plain.copy()
  for restart in (25, 50, 75, 100):
    for k in range(min(5, STEPS + 1 - restart)):
      expected[restart + k] *= (k + 1) / 6
  np.testing.assert_allclose(restarted, expected, rtol=1e-5)


@pytest.mark.parametrize(
  'name, fields, said',
  [
    ('cosine', {'warmup_steps': 101}, 'optimizer.warmup_steps=101'),
    ('wsd', {'decay_steps': 95}, 'optimizer.decay_steps=95'),
    ('wsdc', {'constant_steps': 61}, 'optimizer.constant_steps=61'),
    ('cosine_restarts', {'restart_warmup_steps': 25}, 'restart_warmup_steps=25'),
    (
      'wsd',
      {'decay_shape': 'exponential', 'final_fraction': 0.0},
      'final_fraction=0.0',
    ),
  ],
)
def test_phases_that_do_not_fit_are_refused(name, fields, said):
  with pytest.raises(UserError, match=said):
    rates(name, **fields)
