"""2:4 compress, expand and matmul against plain loops in NumPy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pallas_kernels.two_four import RULES, TwoFour, compress, expand, matmul
from pallas_kernels.two_four.packed import metadata_shape, pack_nibbles, unpack_nibbles
from tests.conftest import thinned

# Each is compiled once for every rule: whole tiles, and not even whole fours of rows.
CASES = [((64, 128), 'float32'), ((71, 132), 'bfloat16')]
PALETTES = {
  'normal': None,
  'ties and zeros': [-2, -1, 0, 0, 1, 2],
  'mostly zeros': [0, 0, 0, 0, 0, 3],
  'far apart': [1e-20, -1, 1e4, -1e20],
  'not finite': [np.nan, np.inf, -np.inf, 0, 1, -2],
}
LEGAL = [i | j << 2 for i, j in itertools.combinations(range(4), 2)]


def drawn(seed, palette, shape, dtype='float32'):
  random = np.random.default_rng(seed)
  values = PALETTES[palette]
  y = random.normal(size=shape) if values is None else random.choice(values, shape)
  return jnp.asarray(y, dtype)


def keywords(rule, seed=0):
  needs = RULES[rule][1]
  return {'key': {'key': jax.random.key(seed)}, 'scale': {'scale': jnp.float32(1.25)}}.get(
    needs, {}
  )


@functools.partial(jax.jit, static_argnames=('axis', 'rule', 'activation'))
def packed_and_expanded(y, axis, rule, activation=None, **given):
  packed = compress(y, axis=axis, rule=rule, activation=activation, **given)
  return packed, expand(packed)


def assert_same(x, y):
  """Equal entries; NumPy's own comparison does not know the NaN of bfloat16."""
  np.testing.assert_array_equal(np.asarray(x, np.float32), np.asarray(y, np.float32))


def word_and_shift(row, entry):
  """Where the metadata keeps the group of `entry`, from the text of the layout."""
  w, r, high = row % 64 // 16, row % 8, row % 16 // 8
  j, h = entry % 128 // 32, entry % 32 // 16
  word = ((w * 2 + h) * 8 + r) * 4 + j
  return (entry // 128, row // 64, word), 16 * high + 4 * (entry % 16 // 4)


def decoded(metadata, rows, entries):
  """Nibbles (rows, entries / 4), one at a time."""
  nibbles = np.zeros((rows, entries // 4), int)
  metadata = np.asarray(metadata)
  for row, group in np.ndindex(nibbles.shape):
    word, shift = word_and_shift(row, 4 * group)
    nibbles[row, group] = int(metadata[word]) >> shift & 15
  return nibbles


def laid_out(packed):
  """The unpacked matrix with the packed axis last, from the nibbles alone."""
  values = np.asarray(packed.values if packed.axis == 1 else packed.values.T)
  M, K = len(values), packed.shape[packed.axis]
  x = np.zeros((M, K // 4, 4), values.dtype)
  nibbles = decoded(packed.metadata, M, K)
  for m, g in np.ndindex(nibbles.shape):
    x[m, g, nibbles[m, g] & 3] = values[m, 2 * g]
    x[m, g, nibbles[m, g] >> 2] = values[m, 2 * g + 1]
  return x.reshape(M, K)


def largest_two(group):
  """A stable sort: of equals the lower index; NaN beats infinity."""
  size = lambda i: (True, 0) if np.isnan(group[i]) else (False, abs(group[i]))
  return sorted(sorted(range(4), key=size, reverse=True)[:2])


def top2_of(x_MxK):
  kept = np.zeros_like(x_MxK)
  for m, g in itertools.product(range(len(x_MxK)), range(0, x_MxK.shape[1], 4)):
    for i in largest_two(x_MxK[m, g : g + 4].astype(np.float64)):
      kept[m, g + i] = x_MxK[m, g + i]
  return kept


@pytest.mark.parametrize('axis', [0, 1])
@pytest.mark.parametrize('rule', thinned(RULES, 'top2'))
@settings(max_examples=8, deadline=None, derandomize=True)
@given(
  case=st.sampled_from(CASES),
  palette=st.sampled_from(sorted(PALETTES)),
  seed=st.integers(0, 2**16),
)
def test_two_of_every_four_are_kept(rule, axis, case, palette, seed):
  (M, K), dtype = case
  y = drawn(seed, palette, (M, K) if axis == 1 else (K, M), dtype)
  packed, expanded = packed_and_expanded(y, axis, rule, **keywords(rule, seed))
  assert packed.values.dtype == y.dtype == expanded.dtype
  assert packed.values.shape == ((M, K // 2) if axis == 1 else (K // 2, M))
  assert packed.metadata.dtype == jnp.uint32
  assert packed.metadata.shape == (-(-K // 128), -(-M // 64), 256)
  assert (packed.shape, packed.axis) == (y.shape, axis)
  # The padding holds legal nibbles as well.
  nibbles = decoded(packed.metadata, -(-M // 64) * 64, -(-K // 128) * 128)
  assert np.isin(nibbles, LEGAL).all()
  assert (nibbles[M:] == 0b0100).all() and (nibbles[:, K // 4 :] == 0b0100).all()
  values = np.asarray(packed.values if axis == 1 else packed.values.T)
  empty = (values.reshape(M, K // 4, 2) == 0).all(axis=-1)
  assert (nibbles[:M, : K // 4][empty] == 0b0100).all()
  assert_same(expanded if axis == 1 else expanded.T, laid_out(packed))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
  case=st.sampled_from(CASES),
  axis=st.sampled_from([0, 1]),
  palette=st.sampled_from(sorted(PALETTES)),
  seed=st.integers(0, 2**16),
)
def test_top2_keeps_the_largest_and_of_equals_the_first(case, axis, palette, seed):
  (M, K), dtype = case
  y = drawn(seed, palette, (M, K) if axis == 1 else (K, M), dtype)
  packed, expanded = packed_and_expanded(y, axis, 'top2')
  x_MxK = np.asarray(y) if axis == 1 else np.asarray(y).T
  assert_same(laid_out(packed), top2_of(x_MxK))
  again, _ = packed_and_expanded(expanded, axis, 'top2')
  jax.tree.map(assert_same, again, packed)


def test_the_kept_positions_of_ties():
  groups = {
    (1, 1, 1, 1): 0b0100,
    (0, 0, 0, 0): 0b0100,
    (0, 2, 2, 2): 0b1001,
    (0, 0, 0, 5): 0b1100,
    (-3, 1, 3, 2): 0b1000,
    (np.nan, np.nan, np.nan, 1): 0b0100,
    (4, 5, 6, np.nan): 0b1110,
    (np.inf, np.inf, np.nan, 1): 0b1000,
    (-0.0, 0.0, -0.0, -1e-9): 0b1100,
  }
  packed = compress(jnp.array([sum(groups, ())], jnp.float32))
  assert decoded(packed.metadata, 1, 36)[0].tolist() == list(groups.values())


def test_metadata_word_layout():
  random = np.random.default_rng(0)
  M, K = 70, 264
  nibbles = random.choice(LEGAL, (M, K // 4))
  words = np.zeros(metadata_shape(M, K), np.uint64)
  assert words.shape == (3, 2, 256)
  for row, group in np.ndindex(128, 3 * 32):
    word, shift = word_and_shift(row, 4 * group)
    inside = row < M and group < K // 4
    words[word] |= np.uint64(int(nibbles[row, group] if inside else 0b0100) << shift)
  packed = pack_nibbles(jnp.asarray(nibbles))
  np.testing.assert_array_equal(packed, words)
  np.testing.assert_array_equal(unpack_nibbles(packed, M, K // 4), nibbles)


def test_metadata_of_one_group_counted_by_hand():
  # Row 25 is row 1 + 8 of warp 1; entries 52 to 55 are group 1 of half 1 of the second 32.
  y = np.zeros((64, 128), np.float32)
  y[25, 54:56] = 1
  words = np.asarray(compress(jnp.asarray(y)).metadata).copy()
  assert words[0, 0, 101] == 0x44E44444
  words[0, 0, 101] = 0x44444444
  assert (words == 0x44444444).all()


@pytest.mark.parametrize('rule', ['top2', 'transposable', 'soft_weights'])
def test_axis_0_is_axis_1_of_the_transpose(rule):
  y, given = drawn(0, 'normal', (8, 12)), keywords(rule)
  rows, whole = packed_and_expanded(y, 1, rule, **given)
  columns, transposed = packed_and_expanded(y.T, 0, rule, **given)
  np.testing.assert_array_equal(columns.values, rows.values.T)
  np.testing.assert_array_equal(columns.metadata, rows.metadata)
  np.testing.assert_array_equal(transposed, whole.T)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_relu2_is_applied_and_rounded_before_pruning(dtype):
  h = drawn(1, 'normal', (6, 16), dtype)
  y = np.square(np.maximum(np.asarray(h, np.float32), 0)).astype(h.dtype)
  _, expanded = packed_and_expanded(h, 1, 'top2', activation='relu2')
  assert_same(expanded, top2_of(y))
  # The soft rule tells when the rounding is: it subtracts.
  _, soft = packed_and_expanded(h, 1, 'soft_weights', 'relu2', scale=jnp.float32(1))
  groups = np.float32(y).reshape(6, 4, 4)
  expected = np.maximum(groups - np.sort(groups, axis=-1)[..., 1:2], 0)
  assert_same(soft, expected.reshape(6, 16).astype(h.dtype))


def inclusion(a):
  """P(i is one of two drawn without replacement in proportion to a), by enumeration."""
  p = np.zeros(4)
  for i, j in itertools.permutations(range(4), 2):
    rest = sum(a[k] for k in range(4) if k != i)
    if a[i] and a[j]:
      p[[i, j]] += a[i] / sum(a) * a[j] / rest
  return p if np.count_nonzero(a) > 1 else (np.array(a) > 0).astype(float)


MVUE_GROUPS = [
  (1, 2, 3, 4),
  (-1, 1, -1, 1),
  (0.01, 5, 0.02, 0.5),
  (0, 3, -1, 2),
  (0, 0, 7, 0),
  (0, 0, 0, 0),
  (1e10, 1, 0, 0),  # where 1e10 + 1 is 1e10: both are certain all the same
  (1e8, 3, 1, 0),
]


def test_mvue_draws_with_its_probabilities_and_without_bias():
  draws, groups = 20_000, np.array(MVUE_GROUPS, np.float64)
  y = jnp.broadcast_to(jnp.asarray(groups.reshape(1, -1), jnp.float32), (draws, 32))
  _, expanded = packed_and_expanded(y, 1, 'mvue', key=jax.random.key(7))
  z = np.asarray(expanded, np.float64).reshape(draws, len(groups), 4)
  for group, sample in zip(groups, z.swapaxes(0, 1)):
    p = inclusion(np.abs(group))
    spread = np.sqrt(p * (1 - p) / draws)
    assert (np.abs((sample != 0).mean(axis=0) - p) <= 5 * spread + 1e-9).all(), group
    # What is kept is the entry over its probability, so the mean is the entry itself.
    value = np.divide(group, p, out=np.zeros(4), where=p > 0)
    kept = np.where(sample != 0, value, 0)
    np.testing.assert_allclose(sample, kept, rtol=1e-5, atol=0, err_msg=str(group))
    error = np.abs(sample.mean(axis=0) - group)
    assert (error <= 5 * np.abs(value) * spread + 1e-5 * np.abs(group)).all(), group


@pytest.mark.parametrize('palette', ['normal', 'ties and zeros'])
def test_soft_threshold_formula(palette):
  y = drawn(3, palette, (6, 24))
  expected = np.zeros((6, 6, 4), np.float32)
  for m, g in np.ndindex(6, 6):
    group = np.asarray(y)[m, 4 * g : 4 * g + 4]
    threshold = np.sort(np.abs(group))[1]
    expected[m, g] = np.sign(group) * np.maximum(np.abs(group) - threshold, 0) * 1.25
  for rule in ('soft_weights', 'soft_activations'):
    _, expanded = packed_and_expanded(y, 1, rule, **keywords(rule))
    np.testing.assert_allclose(expanded, expected.reshape(6, 24), rtol=1e-6)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**16), size=st.sampled_from([1e-3, 1e-2, 1.0]))
def test_soft_threshold_is_continuous_through_ties(seed, size):
  y = drawn(seed, 'ties and zeros', (6, 24))
  step = jnp.asarray(np.random.default_rng(seed).uniform(-size, size, y.shape), jnp.float32)
  rule = functools.partial(packed_and_expanded, axis=1, rule='soft_activations')
  change = rule(y + step, scale=jnp.float32(1))[1] - rule(y, scale=jnp.float32(1))[1]
  # An entry and the threshold move by at most `size` each.
  assert float(jnp.abs(change).max()) <= 2 * size + 1e-6


def all_tiles():
  """Every 0/1 matrix of 4 x 4 with two ones in each row and column."""
  bits = (np.arange(2**16)[:, None] >> np.arange(16)) & 1
  tiles = bits.reshape(-1, 4, 4)
  right = (tiles.sum(axis=1) == 2).all(axis=1) & (tiles.sum(axis=2) == 2).all(axis=1)
  return tiles[right]


def greedy(tile):
  """Entries by falling magnitude while row and column have room."""
  kept = np.zeros((4, 4), int)
  for place in np.argsort(-tile, axis=None, kind='stable'):
    i, j = divmod(int(place), 4)
    kept[i, j] = kept[i].sum() < 2 and kept[:, j].sum() < 2
  return kept


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
  palette=st.sampled_from(['normal', 'ties and zeros', 'mostly zeros']),
  seed=st.integers(0, 2**16),
  rows=st.sampled_from([8, 6]),
)
def test_transposable_keeps_the_best_of_all_patterns(palette, seed, rows):
  patterns = all_tiles()
  assert len(patterns) == 90
  y = drawn(seed, palette, (rows, 16))
  _, expanded = packed_and_expanded(y, 1, 'transposable')
  pad = ((0, -rows % 4), (0, 0))
  a, z = (np.pad(np.abs(np.asarray(x, np.float64)), pad) for x in (y, expanded))
  np.testing.assert_array_equal(z[z != 0], a[z != 0])
  for i, j in itertools.product(range(0, len(a), 4), range(0, 16, 4)):
    tile, kept = a[i : i + 4, j : j + 4], z[i : i + 4, j : j + 4]
    assert ((kept != 0).sum(axis=0) <= 2).all() and ((kept != 0).sum(axis=1) <= 2).all()
    best = (patterns * tile).sum(axis=(1, 2)).max()
    np.testing.assert_allclose(kept.sum(), best, rtol=1e-6)
    pattern = greedy(tile)
    if pattern.sum() == 8:  # else a hole was left that no free entry fits
      assert kept.sum() >= (pattern * tile).sum() - 1e-6 * best


def test_transposable_knows_every_pattern():
  y = jnp.asarray(np.concatenate(all_tiles(), axis=1), jnp.float32)
  np.testing.assert_array_equal(packed_and_expanded(y, 1, 'transposable')[1], y)


def test_transposable_is_legal_along_the_other_axis():
  # No zeros: what is kept along one axis is all that compressing along the other keeps.
  y = drawn(5, 'normal', (16, 24))
  _, z = packed_and_expanded(y, 1, 'transposable')
  assert (np.asarray(z != 0).reshape(4, 4, 24).sum(axis=1) == 2).all()
  np.testing.assert_array_equal(packed_and_expanded(z, 0, 'top2')[1], z)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('transpose_b', [False, True])
@pytest.mark.parametrize('axis', [0, 1])
def test_matmul_contracts_the_packed_axis(axis, transpose_b, dtype):
  M, K, N = 5, 256, 7
  y = drawn(6, 'normal', (M, K) if axis == 1 else (K, M), dtype)
  b = drawn(7, 'normal', (N, K) if transpose_b else (K, N), dtype)
  packed, whole = packed_and_expanded(y, axis, 'top2')
  x = np.asarray(whole, np.float64) if axis == 1 else np.asarray(whole, np.float64).T
  expected = x @ (np.asarray(b, np.float64).T if transpose_b else np.asarray(b, np.float64))
  product = matmul(packed, b, transpose_b=transpose_b)
  assert product.dtype == dtype
  tolerance = 1e-5 if dtype == 'float32' else 2**-8
  np.testing.assert_allclose(product, expected, rtol=tolerance, atol=1e-4)
  # Accumulated in float32, whatever the operands.
  wide = matmul(packed, b, transpose_b=transpose_b, out_dtype=jnp.float32)
  assert wide.dtype == jnp.float32
  np.testing.assert_allclose(wide, expected, rtol=1e-5, atol=1e-4)


def test_a_packed_matrix_goes_through_jit():
  packed = compress(drawn(8, 'normal', (4, 8)))
  doubled = jax.jit(
    lambda p: expand(TwoFour(2 * p.values, p.metadata, p.axis, p.shape)),
  )(packed)
  np.testing.assert_array_equal(doubled, 2 * expand(packed))


MATRIX = jnp.ones((4, 8))


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: compress(MATRIX[:, :6]), r'shape \(4, 6\): its length along axis=-1 must'),
    (lambda: compress(MATRIX[:3], axis=0), r'shape \(3, 8\): its length along axis=0'),
    (lambda: compress(MATRIX[None]), r'y of shape \(1, 4, 8\).*must be a matrix'),
    (lambda: compress(MATRIX.astype(jnp.float16)), 'float16: must be a matrix, float32 or'),
    (lambda: compress(MATRIX.astype(jnp.int32)), 'int32: must be a matrix, float32 or'),
    (lambda: compress(MATRIX, axis=2), 'axis=2: must be -2 to 1'),
    (lambda: compress(MATRIX, rule='top3'), "rule='top3': must be one of 'top2', 'mvue'"),
    (lambda: compress(MATRIX, activation='gelu'), "activation='gelu': must be None or"),
    (lambda: compress(MATRIX, rule='mvue'), "key: must be given for rule='mvue'"),
    (lambda: compress(MATRIX, rule='soft_weights'), 'scale: must be given'),
    (lambda: compress(MATRIX, key=jax.random.key(0)), "key: must be None for rule='top2'"),
    (lambda: compress(MATRIX, scale=jnp.float32(1)), 'scale: must be None'),
    (lambda: compress(MATRIX, implementation='gpu'), "implementation='gpu': must be one"),
    (lambda: expand(compress(MATRIX), implementation='gpu'), "implementation='gpu'"),
    (lambda: matmul(compress(MATRIX), MATRIX), r'b of shape \(4, 8\).*must have 8 entries'),
    (
      lambda: matmul(compress(MATRIX, axis=0), MATRIX, transpose_b=True),
      r'transpose_b=True: must have 4 entries',
    ),
    (lambda: matmul(compress(MATRIX), MATRIX[0]), r'b of shape \(8,\)'),
  ],
)
def test_errors_name_what_does_not_fit(call, message):
  with pytest.raises(ValueError, match=message):
    call()


@pytest.mark.parametrize(
  'call',
  [
    lambda name: compress(MATRIX, implementation=name),
    lambda name: expand(compress(MATRIX), implementation=name),
    lambda name: matmul(compress(MATRIX), MATRIX.T, implementation=name),
  ],
)
def test_implementations(call):
  jax.tree.map(np.testing.assert_array_equal, call('xla'), call(None))
  with pytest.raises(NotImplementedError, match="implementation='mosaic'"):
    call('mosaic')
