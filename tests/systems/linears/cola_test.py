"""Where CoLA's factors start, and what CoLA-M keeps of it."""

import jax
import numpy as np

from elas_jax.systems.linears.cola import CoLA
from tests.systems.linears.layers import I, R, layer_of, normal, randomised, start

BOTTLENECK = jax.checkpoint_policies.save_only_these_names('bottleneck')


def test_starting_scales():
  p = start(layer_of(CoLA(32), 300), normal(1, 200))['params']
  for factor in (p['a'], p['b']):
    assert abs(float(factor.std()) / (32**-0.25 * 500**-0.25) - 1) < 0.05
  # The product then has a variance of 1 / (I + O).
  assert abs(float((p['a'] @ p['b']).std()) * 500**0.5 - 1) < 0.1


def test_cola_m_has_its_gradients_and_keeps_the_bottleneck():
  layer, x = layer_of(CoLA(R), I), normal(2, 16, I)
  variables = randomised(start(layer, x))
  # Two maps in a row: what the second gets is not kept either.
  twice = lambda v, x: layer.apply(v, layer.apply(v, x))
  recomputed = jax.checkpoint(twice, policy=BOTTLENECK)
  gradients = [
    jax.jit(jax.grad(lambda v, x, f=f: (f(v, x) ** 2).mean(), (0, 1)))(variables, x)
    for f in (twice, recomputed)
  ]
  for plain, again in zip(*map(jax.tree.leaves, gradients)):
    assert plain.any()
    assert np.abs(plain - again).max() <= 1e-3 * np.abs(plain).max()
  kept = jax.eval_shape(lambda v, x: jax.vjp(recomputed, v, x)[1], variables, x)
  shapes = [leaf.shape for leaf in jax.tree.leaves(kept)]
  weights = [p.shape for p in jax.tree.leaves(variables)]
  inner = sorted(shape for shape in shapes if shape not in weights)
  assert inner == sorted([x.shape] + 2 * [(2, 16, R)])
