"""Language modelling: the next token, from blocks of tokens.

A batch is dict(tokens (B, L+1), valid (B,), bytes (B,)) and, with data.document_mask,
segments (B, L), without which a row is one document; data/packing.py says what the fields
mean. Of conversations it has answers (B, L) as well, which alone count: see
data/chat_rows.py. Losses and perplexity are weighted by tokens.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.limits import shown
from elas_jax.config.config import Config, at_step
from elas_jax.data import chat
from elas_jax.data.blocks import Prepared, prepare
from elas_jax.data.tokenizers import Tokenizer
from elas_jax.models.decoder import Decoder
from elas_jax.models.sampling import generate
from elas_jax.ops.loss import cross_entropy_sums
from elas_jax.systems.kinds import about
from elas_jax.systems.seen import Seen
from elas_jax.tasks.task import Batch, Task, mutable, seen_of


def inputs(config: Config) -> jax.Array:
  return jnp.zeros((1, min(8, config.data.sequence_length)), jnp.int32)


def rows(config: Config, count: int) -> Batch:
  array = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32)
  length = config.data.sequence_length
  found = {'tokens': array(count, length + 1), 'valid': array(count), 'bytes': array(count)}
  if _is_chat(config):
    found['answers'] = array(count, length)
  return found | ({'segments': array(count, length)} if config.data.document_mask else {})


def prepared(config: Config, tokenizer: Tokenizer | None = None) -> Prepared:
  data = prepare(config.data.source.corpus(config.data), tokenizer)
  check_vocabulary(config, data)
  check_sample(config, data)
  return data.with_segments() if config.data.document_mask else data


def check_sample(config: Config, data: Prepared) -> None:
  """The sample at the end must fit into the positions that the model knows."""
  if not config.eval.sample_tokens:
    return
  if _is_chat(config) and not config.eval.prompt.strip():
    raise UserError(
      f'eval.prompt={shown(config.eval.prompt)}: must be a message that is answered after '
      f'training, with {config.data.source.shown()}; or give eval.sample_tokens=0'
    )
  if limit := about(config.model.position, 'limit', config.model.parts):
    most = limit - len(_sample_prompt(config, data.tokenizer))
    if config.eval.sample_tokens > most:
      raise UserError(
        f'eval.sample_tokens={config.eval.sample_tokens}: must be at most {most} behind '
        f'eval.prompt={shown(config.eval.prompt)}, since model.position has {limit}'
      )


def _is_chat(config: Config) -> bool:
  return about(config.data.source, 'answers', default=False)


def _sample_prompt(config: Config, tokenizer: Tokenizer) -> np.ndarray:
  """The tokens that the sample at the end comes behind."""
  if _is_chat(config):
    return chat.asked(config.eval.prompt, tokenizer)
  ids = tokenizer.encode(config.eval.prompt)[0]
  return np.insert(ids, 0, tokenizer.eos_id)


def check_vocabulary(config: Config, data: Prepared) -> None:
  """model.vocab_size must hold every id that the data has and generation may need."""
  # Some published tokenizers have more names than ids in use (t5-base: 32100 where the
  # models of the C4 protocol have 32000), so what counts is the ids that occur.
  used = max(data.train.max_token_id, data.validation.max_token_id) + 1
  needed = max(used, data.tokenizer.eos_id + 1)
  if config.model.vocab_size < needed:
    raise UserError(
      f'model.vocab_size={config.model.vocab_size}: must be at least {needed} for '
      f'{config.data.tokenizer.shown()}'
    )


def forward(
  config: Config,
  variables: Any,
  batch: Batch,
  key: jax.Array,
  train: bool,
  sown: Sequence[str] = (),
) -> Seen:
  """Sums over the valid targets: loss (-log p), squared_log_z, count, bytes."""
  inputs_BxL, targets_BxL = batch['tokens'][:, :-1], batch['tokens'][:, 1:]
  positions_1xL = jnp.arange(inputs_BxL.shape[1])[None, :]
  counted_BxL = batch.get('answers', positions_1xL < batch['valid'][:, None])
  weights_BxL = counted_BxL.astype(jnp.float32)
  (logits_BxLxV, _), changed = Decoder(config.model).apply(
    variables,
    inputs_BxL,
    segments_BxL=batch.get('segments'),
    train=train,
    rngs={'noise': key},
    mutable=mutable(train, sown),
  )
  loss, squared_log_z = cross_entropy_sums(logits_BxLxV, targets_BxL, weights_BxL)
  sums = {
    'loss': loss,
    'squared_log_z': squared_log_z,
    'count': weights_BxL.sum(),
    'bytes': batch['bytes'].astype(jnp.float32).sum(),
  }
  computed = {'outputs': logits_BxLxV, 'weights': weights_BxL, 'sums': sums}
  again = lambda variables: forward(config, variables, batch, key, train, sown)
  return seen_of(config, variables, batch, changed, sown, again, **computed)


def exp(loss: float) -> float:
  """e^loss, the perplexity; infinite where that overflows."""
  return math.exp(loss) if loss < 700 else math.inf


def train_values(sums: dict[str, float]) -> dict[str, float]:
  loss = sums['loss'] / max(sums['count'], 1.0)
  bits = sums['loss'] / max(sums['bytes'], 1.0) / math.log(2)
  return {'loss': loss, 'perplexity': exp(loss), 'bits_per_byte': bits}


def eval_values(sums: dict[str, np.ndarray]) -> dict[str, float]:
  """Token-weighted metrics, and what published tables have.

  'loss' (nats a token), 'perplexity', 'bits_per_byte', 'tokens', and, to compare with the
  tables of GaLore, SLTrain, LORO, CoLA and ELAS, 'published_loss' and
  'published_perplexity': their evaluation loops print the sum of the n batch means divided
  by n + 1, which is too low by a factor n / (n + 1) and not weighted by tokens.
  """
  total = {name: float(values.sum()) for name, values in sums.items()}
  loss = total['loss'] / total['count']
  full = sums['count'] > 0
  means = sums['loss'][full] / sums['count'][full]
  published = float(means.sum()) / (len(means) + 1)
  return {
    'loss': loss,
    'perplexity': exp(loss),
    'bits_per_byte': total['loss'] / total['bytes'] / math.log(2),
    'tokens': total['count'],
    'published_loss': published,
    'published_perplexity': exp(published),
  }


def show(config: Config, state: Any, data: Prepared) -> None:
  """A sample, if the run has ended and this process has all of the model."""
  whole = jax.process_count() == 1  # else the others would have to take part
  step = int(state.step)
  if not (whole and step == config.train.steps and config.eval.sample_tokens):
    return
  is_chat = _is_chat(config)
  text = generate(
    at_step(config, step).model,
    jax.device_get(state.variables),
    data.tokenizer,
    [chat.asked(config.eval.prompt, data.tokenizer) if is_chat else config.eval.prompt],
    length=config.eval.sample_tokens,
    temperature=0.8,
    top_p=0.95,
    seed=config.seed,
    behind_end=config.data.protocol == 'packed',
    stops=chat.stops(data.tokenizer) if is_chat else (),
  )[0]
  shown_prompt = '' if is_chat else config.eval.prompt
  print(f'--- sample, from {config.eval.prompt!r}\n{shown_prompt}{text}\n---')


def headline(values: dict[str, float]) -> str:
  perplexity = values['eval/perplexity']  # None: it was infinite
  shown = 'infinite' if perplexity is None else f'{perplexity:.4f}'
  return f'perplexity {shown}, bits per byte {values["eval/bits_per_byte"]:.4f}'


LANGUAGE = Task(
  unit='tokens',
  module=lambda config: Decoder(config.model),
  inputs=inputs,
  row_units=lambda config: config.data.sequence_length,
  rows=rows,
  prepare=prepared,
  forward=forward,
  train_values=train_values,
  eval_values=eval_values,
  show=show,
  headline=headline,
)
