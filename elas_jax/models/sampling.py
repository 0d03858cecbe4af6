"""Sampling: prompts continued by a trained decoder, with its cache."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.limits import LARGEST, LARGEST_INTEGER, check_float
from elas_jax.common.memory import check_memory, missing_memory, tree_bytes
from elas_jax.config.config import ModelConfig
from elas_jax.data.tokenizers import Tokenizer
from elas_jax.models.decoder import Decoder, apart, empty_cache
from elas_jax.systems.kinds import about, factors, kernels

SkipZeros = Literal['auto', 'always', 'never']
LEAST_ENTRIES = 1 << 20  # of a kernel: 4 MB in float32, what caches do not hold of N layers


def generate(
  model: ModelConfig,
  variables: Any,
  tokenizer: Tokenizer,
  prompts: Sequence[str] | Sequence[np.ndarray],
  *,
  length: int,
  temperature: float,
  top_p: float,
  seed: int,
  behind_end: bool = True,
  stops: Sequence[int] = (),
  skip_zeros: SkipZeros = 'auto',
) -> list[str]:
  """Continues each prompt by up to `length` tokens; returns the continuations.

  One batch with a key-value cache. Prompts may differ in length: what they share is
  read in one pass, longer ones are then fed token by token beside sampled ones. A
  continuation ends before the end-of-document token.

  Args:
    prompts: texts, or tokens that stand for themselves, such as data/chat.py:prompt gives;
      what comes behind these is a text of its own.
    temperature: divides the logits; 0 takes the most likely token.
    top_p: samples among the fewest tokens whose probabilities reach this sum.
    behind_end: whether texts start behind the end of another, as data.protocol='packed'
      has them. Of 'document' none does, and its model has not learned that token as an
      input; an empty prompt has no other, though.
    stops: further tokens that end a continuation.
    skip_zeros: whether the last map of feed-forwards reads only the rows whose activation
      is not zero, which gives the same outputs up to rounding: 'always', 'never', or
      'auto', where it may pay (`pays`). For one prompt alone.
  """
  _check_sampling(length, temperature, top_p, seed)
  if skip_zeros == 'always':
    _check_skipping(model, len(prompts))
  read, ids = zip(*(_prompt_ids(prompt, tokenizer, behind_end) for prompt in prompts))
  largest = max(max(row) for row in ids)
  if largest >= model.vocab_size:
    raise UserError(
      f'prompt: holds the token {largest}; the model knows those below {model.vocab_size}'
    )
  lengths_B = np.array([len(row) for row in ids])
  longest = int(lengths_B.max())
  skipping = skip_zeros == 'always'
  if skip_zeros == 'auto' and pays(model, len(ids)):
    twice = {'parameters, twice': 2 * tree_bytes(variables)}
    skipping = missing_memory(twice) is None  # where there is no room, it is done without
  _check_length(model, variables, len(ids), longest, length, copies=1 + skipping)
  tokens_BxS = np.full((len(ids), longest + length), tokenizer.eos_id, np.int32)
  for row, prompt in zip(tokens_BxS, ids):
    row[: len(prompt)] = prompt
  filled_BxS = _fill(
    model,
    variables,
    jnp.asarray(tokens_BxS),
    jnp.asarray(lengths_B),
    jax.random.key(seed),
    jnp.float32(temperature),
    jnp.float32(top_p),
    shared=int(lengths_B.min()),
    skip_zeros=skipping,
  )
  texts, ends = [], {tokenizer.eos_id, *stops}
  for row, start, prompt in zip(np.asarray(filled_BxS), lengths_B, read):
    new = row[start : start + length].tolist()
    new = list(itertools.takewhile(lambda token: token not in ends, new))
    texts.append(continuation(tokenizer, prompt, new))
  return texts


def _prompt_ids(
  prompt: str | np.ndarray, tokenizer: Tokenizer, behind_end: bool
) -> tuple[list[int], list[int]]:
  """(tokens of the text that is continued, all that the model reads)."""
  if not isinstance(prompt, str):
    return [], list(map(int, prompt))
  read = list(map(int, tokenizer.encode(readable('prompt', prompt))[0]))
  return read, [tokenizer.eos_id, *read] if behind_end or not read else read


def _check_sampling(length: int, temperature: float, top_p: float, seed: int) -> None:
  if length < 1:
    raise UserError(f'tokens={length}: must be at least 1')
  check_float('temperature', temperature)
  if temperature < 0:
    raise UserError(f'temperature={temperature}: must be at least 0')
  check_float('top_p', top_p)
  if not 0 < top_p <= 1:
    raise UserError(f'top_p={top_p}: must be above 0 and at most 1')
  if not 0 <= seed <= LARGEST['seed']:
    raise UserError(f'seed={seed}: must be between 0 and {LARGEST["seed"]}')


def pays(model: ModelConfig, rows: int) -> bool:
  """Whether to pass over zeros in decoding so many rows may be faster than not to.

  On one CPU, one row, feed-forwards whose activations are often exactly zero, and maps too
  large for its caches: then a token takes as long as its kernels take to be read. Whether
  it is faster then depends on how many are zero, which each layer finds out at each token
  (ops/live_rows.py). benchmarks/sparse_decoding.py compares.
  """
  entries = (
    model.feed_forward_width * about(model.linear, 'short', default=('', model.width))[1]
  )
  alone = jax.default_backend() == 'cpu' and jax.device_count() == 1
  return rows == 1 and alone and not _not_skipping(model) and entries >= LEAST_ENTRIES


def _not_skipping(model: ModelConfig) -> str:
  """Why nothing could be passed over in this model; '' if something can."""
  linear = model.linear
  # Of a masked map the kernel is made of two arrays first, and all of both is read.
  made = hasattr(linear, 'merged') and not factors(linear)
  if not kernels(linear) or made:
    return 'its linear maps are no plain products'
  feed_forwards = [layer.feed_forward for layer in model.cycle]
  if not any(about(kind, 'zeros', default=False) for kind in feed_forwards):
    return 'no feed-forward of it has activations that are zero'
  return ''


def _check_skipping(model: ModelConfig, prompts: int) -> None:
  if prompts != 1:
    raise UserError(
      f"skip_zeros='always': must be 'auto' or 'never' with {prompts} prompts, of which "
      'each would need other rows'
    )
  if why := _not_skipping(model):
    raise UserError(
      f"skip_zeros='always': must be 'auto' or 'never' with this model: {why}"
    )


def readable(field: str, prompt: str) -> str:
  """The prompt; bytes of the command line that the locale could not read, as UTF-8.

  Raises:
    UserError: it holds half a surrogate pair, or bytes that are not UTF-8.
  """
  try:
    return prompt.encode('utf-8', 'surrogateescape').decode()
  except UnicodeError as error:
    raise UserError(f'{field}={prompt!r}: is not Unicode text: {error.reason}') from error


def continuation(tokenizer: Tokenizer, prompt: list[int], new: list[int]) -> str:
  """The text of `new` behind `prompt`.

  A decoder drops the space before the first word of a text, so both are decoded together.
  Where what follows changes how the prompt itself is written (some decoders join an
  apostrophe to both its words), the text of `new` alone is all there is.
  """
  before, whole = tokenizer.decode(prompt), tokenizer.decode(prompt + new)
  if whole.startswith(before):
    return whole[len(before) :]
  return tokenizer.decode(new)


def _check_length(
  model: ModelConfig, variables: Any, rows: int, longest: int, length: int, copies: int
) -> None:
  """Refuses a length whose positions or whose cache there is no room for.

  `copies` of the parameters: stacked, and by layer as well.
  """
  most = LARGEST_INTEGER - longest
  if length > most:
    raise UserError(f'tokens={length}: must be at most {most} behind such a prompt')
  limit = about(model.position, 'limit', model.parts, default=most)
  if length + longest > limit:
    raise UserError(
      f'tokens={length}: must be at most {limit - longest} behind such a prompt, since the '
      f'model knows {limit} positions'
    )
  cache = jax.eval_shape(lambda: empty_cache(model, rows, longest + length))
  needed = {
    'parameters': copies * tree_bytes(variables),
    # Several devices may share it.
    'keys and values': tree_bytes(cache) // jax.device_count(),
  }
  check_memory(f'tokens={length}', needed)


@functools.partial(jax.jit, static_argnames=('model', 'shared', 'skip_zeros'))
def _fill(
  model, variables, tokens_BxS, lengths_B, key, temperature, top_p, *, shared, skip_zeros
):
  """Replaces the tokens behind each row's prompt by samples; `shared` = min length."""
  B, S = tokens_BxS.shape

  def apply(tokens_BxL, cache, start, decoder, variables):
    rngs = {'noise': jax.random.fold_in(key, S + start)}
    return decoder.apply(variables, tokens_BxL, cache, start, rngs=rngs)

  decoder, cache = Decoder(model), empty_cache(model, B, S)
  logits_BxLxV, cache = apply(tokens_BxS[:, :shared], cache, 0, decoder, variables)
  if skip_zeros:
    decoder = Decoder(model, by_layer=True, skip_zeros=True)
    variables, cache = apart(model, variables, cache)

  def fill_one(carry, position):
    tokens_BxS, logits_BxV, cache = carry
    step_key = jax.random.fold_in(key, position)
    sampled_B = sample(step_key, logits_BxV, temperature, top_p)
    token_B = jnp.where(position < lengths_B, tokens_BxS[:, position], sampled_B)
    tokens_BxS = tokens_BxS.at[:, position].set(token_B)
    given = token_B[:, None], cache, position
    logits_Bx1xV, cache = apply(*given, decoder, variables)
    return (tokens_BxS, logits_Bx1xV[:, 0], cache), None

  carry = (tokens_BxS, logits_BxLxV[:, -1], cache)
  (tokens_BxS, *_), _ = jax.lax.scan(fill_one, carry, jnp.arange(shared, S))
  return tokens_BxS


def sample(
  key: jax.Array, logits_BxV: jax.Array, temperature: jax.Array, top_p: jax.Array
) -> jax.Array:
  """One token a row: nucleus sampling (arXiv 1904.09751), greedy at temperature 0."""
  greedy_B = jnp.argmax(logits_BxV, axis=-1)
  scaled_BxV = logits_BxV / jnp.maximum(temperature, 1e-6)
  order_BxV = jnp.argsort(-scaled_BxV, axis=-1)
  sorted_BxV = jnp.take_along_axis(scaled_BxV, order_BxV, axis=-1)
  kept_BxV = in_nucleus(jax.nn.softmax(sorted_BxV, axis=-1), top_p)
  nucleus_BxV = jnp.where(kept_BxV, sorted_BxV, -jnp.inf)
  pick_B = jax.random.categorical(key, nucleus_BxV, axis=-1)
  sampled_B = jnp.take_along_axis(order_BxV, pick_B[:, None], axis=-1)[:, 0]
  return jnp.where(temperature > 0, sampled_B, greedy_B)


def in_nucleus(probabilities_BxV: jax.Array, top_p: jax.Array) -> jax.Array:
  """Which of the probabilities, in descending order, are the fewest that reach top_p.

  A token is among them if it and those behind it sum to more than 1 - top_p. Summed from
  the small end: the sum of those before it is near 1, where float32 loses a long tail.
  """
  tail_BxV = jax.lax.cumsum(probabilities_BxV, axis=1, reverse=True)
  first_1xV = jnp.arange(probabilities_BxV.shape[1])[None] == 0
  return first_1xV | (tail_BxV > 1 - top_p)
