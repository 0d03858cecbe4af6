"""Attention and rotary embeddings against a naive NumPy version in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.ops import attention
from elas_jax.ops.attention import (
  cached_attention,
  causal_attention,
  rotary_angles,
  rotate,
)
from tests.conftest import thinned


def naive(q, k, v, segments=None):
  B, L, H, K = q.shape
  group = H // k.shape[2]
  out = np.zeros(q.shape)
  for b in range(B):
    for h in range(H):
      for i in range(L):
        seen = np.arange(i + 1)
        if segments is not None:
          seen = seen[segments[b, : i + 1] == segments[b, i]]
        s = k[b, seen, h // group].astype(np.float64) @ q[b, i, h] / np.sqrt(K)
        p = np.exp(s - s.max())
        out[b, i, h] = (p / p.sum()) @ v[b, seen, h // group]
  return out


def inputs(B, L, H, J, K):
  random = np.random.default_rng(0)
  shapes = ((B, L, H, K), (B, L, J, K), (B, L, J, K))
  return tuple(2 * random.normal(size=shape).astype(np.float32) for shape in shapes)


@pytest.mark.parametrize(
  'L, H, J',
  thinned(
    [(L, *heads) for L in (1, 5, 64, 65, 150) for heads in ((4, 4), (4, 2), (3, 1))],
    *((1, 4, 4), (5, 3, 1), (64, 4, 2), (65, 4, 4), (150, 4, 2)),
  ),
)
def test_causal_attention_equals_naive(L, H, J):
  q, k, v = inputs(2, L, H, J, 8)
  np.testing.assert_allclose(
    causal_attention(q, k, v), naive(q, k, v), rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize('flash', [False, True])
def test_segments_are_apart(flash, monkeypatch):
  q, k, v = inputs(2, 150, 4, 2, 8)
  segments = np.sort(np.random.default_rng(2).integers(0, 6, (2, 150)), axis=1)
  if flash:  # what cuDNN would be given, by XLA
    whole = jax.nn.dot_product_attention
    monkeypatch.setattr(attention, '_takes_flash', lambda q, v: True)
    by_xla = lambda *x, implementation, **given: whole(*x, **given)
    monkeypatch.setattr(jax.nn, 'dot_product_attention', by_xla)
  np.testing.assert_allclose(
    causal_attention(q, k, v, jnp.asarray(segments)),
    naive(q, k, v, segments),
    rtol=1e-4,
    atol=1e-5,
  )


def test_an_odd_length_with_segments_is_not_cudnns(monkeypatch):
  # Which refuses the gradient of a mask there.
  monkeypatch.setattr(attention, '_takes_flash', lambda q, v: True)
  q, k, v = inputs(2, 9, 4, 2, 8)
  segments = np.zeros((2, 9), np.int32)
  given = causal_attention(q, k, v, jnp.asarray(segments))
  np.testing.assert_allclose(given, naive(q, k, v, segments), rtol=1e-4, atol=1e-5)


def test_gradients_equal_those_of_the_unblocked_form():
  q, k, v = inputs(2, 150, 4, 2, 8)
  weight = np.random.default_rng(1).normal(size=q.shape).astype(np.float32)

  def loss(attention):
    return jax.jit(jax.grad(lambda *x: (attention(*x) * weight).sum(), argnums=(0, 1, 2)))

  plain = lambda q, k, v: jax.nn.dot_product_attention(q, k, v, is_causal=True)
  for ours, theirs in zip(loss(causal_attention)(q, k, v), loss(plain)(q, k, v)):
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_large_logits_do_not_overflow():
  q, k, v = inputs(1, 70, 2, 2, 8)
  y = causal_attention(100 * q, 100 * k, v)
  assert np.isfinite(y).all()
  grads = jax.jit(jax.grad(lambda q: causal_attention(q, 100 * k, v).sum()))(100 * q)
  assert np.isfinite(grads).all()


def test_cached_attention_ignores_what_is_not_yet_written():
  q, k, v = inputs(2, 12, 4, 2, 8)
  whole = causal_attention(q, k, v)
  k[:, 9:], v[:, 9:] = 1e6, 1e6
  k, v = (x.swapaxes(1, 2) for x in (k, v))
  part = jax.jit(cached_attention)(q[:, 6:9], k, v, jnp.int32(6))
  np.testing.assert_allclose(part, whole[:, 6:9], rtol=1e-5, atol=1e-5)


def test_bf16_keeps_its_dtype_and_a_float32_softmax():
  q, k, v = inputs(2, 100, 4, 2, 8)
  half = [jnp.asarray(x, jnp.bfloat16) for x in (q, k, v)]
  y = causal_attention(*half)
  assert y.dtype == jnp.bfloat16
  expected = naive(*[np.asarray(x, np.float32) for x in half])
  assert np.abs(np.asarray(y, np.float32) - expected).max() < 0.05


def test_rotation_depends_on_distance_only():
  K, base = 16, 10000.0
  q, k, _ = inputs(1, 1, 1, 1, K)

  def score(i, j):
    turn = lambda x, p: rotate(x, rotary_angles(jnp.array([p]), K, base))
    return float((turn(q, i) * turn(k, j)).sum())

  np.testing.assert_allclose(score(3, 1), score(40, 38), rtol=1e-4)
  assert abs(score(3, 1) - score(3, 2)) > 1e-3


def test_rotation_formula():
  K, base, position = 8, 100.0, 3
  x = np.arange(1.0, K + 1, dtype=np.float32).reshape(1, 1, 1, K)
  turned = rotate(x, rotary_angles(jnp.array([position]), K, base))[0, 0, 0]
  for i in range(K // 2):
    angle = position * base ** (-2 * i / K)
    pair = complex(x[0, 0, 0, i], x[0, 0, 0, i + K // 2]) * np.exp(1j * angle)
    np.testing.assert_allclose(turned[i], pair.real, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(turned[i + K // 2], pair.imag, rtol=1e-5, atol=1e-5)
