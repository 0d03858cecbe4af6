"""Preference learning: of two answers to a prompt the chosen one is to be the more likely.

A batch is dict(tokens (B, 2, L+1), answers (B, 2, L), valid (B,)): prompt and answer of the
chosen and of the rejected sequence; which targets are of the answer, 1 or 0; and 1, or 0 in
a row that only fills up a batch. A pair is a unit; losses are means over pairs.

The loss (train.preference) compares with the parameters at the start, the reference. They
are a part of the state: its buffers have them under REFERENCE, whole and placed as the
parameters are, and so has every checkpoint. So a run that goes on, on other devices or with
its `restore` gone, has the same reference bit for bit, and any pairs can be evaluated;
log-probabilities of the train split, computed once, would take less memory and half the
time of a forward pass, but know no other pairs, and another phase of the model (dense
steps) would make them wrong. The reference is run as the network of the same step is.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.config.config import Config
from elas_jax.models.decoder import Decoder
from elas_jax.models.flops import flops
from elas_jax.systems.seen import Seen
from elas_jax.tasks import language
from elas_jax.tasks.task import REFERENCE, Batch, Task, mutable, of_network, seen_of


def rows(config: Config, count: int) -> Batch:
  array = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32)
  length = config.data.sequence_length
  tokens, answers = array(count, 2, length + 1), array(count, 2, length)
  return {'tokens': tokens, 'answers': answers, 'valid': array(count)}


def prepared(config: Config, tokenizer: Any = None) -> Any:
  """The pairs, which must be what the model knows."""
  data = config.data.source.pairs(config.data, tokenizer)
  language.check_vocabulary(config, data)
  language.check_sample(config, data)
  return data


def forward(
  config: Config,
  variables: Any,
  batch: Batch,
  key: jax.Array,
  train: bool,
  sown: Sequence[str] = (),
) -> Seen:
  """Sums over the pairs: loss, count, correct, rewards; outputs are of (2B, L) tokens.

  Weights are 1 / (answer tokens of both sequences) at those and 0 elsewhere, so that those
  of a pair are 1. Variables without a reference are their own, as those at the start are.
  """
  network = of_network(variables)
  own = {name: network[name] for name in ('params', 'buffers')}
  reference = variables['buffers'].get(REFERENCE, own)
  sequences = lambda x: x.reshape(-1, x.shape[-1])  # chosen and rejected in turns
  tokens_SxM = sequences(batch['tokens'])
  inputs_SxL, targets_SxL = tokens_SxM[:, :-1], tokens_SxM[:, 1:]
  answers_SxL = sequences(batch['answers']).astype(jnp.float32)
  pairs = lambda x_SxL: (x_SxL * answers_SxL).sum(1).reshape(-1, 2)
  noise = {'noise': key}  # the same for both, which start as the same network
  (logits_SxLxV, _), changed = Decoder(config.model).apply(
    network, inputs_SxL, train=train, rngs=noise, mutable=mutable(train, sown)
  )
  theirs_SxLxV, _ = Decoder(config.model).apply(
    jax.lax.stop_gradient(reference), inputs_SxL, train=train, rngs=noise
  )
  log_p_SxL, log_z_SxL = log_probabilities(logits_SxLxV, targets_SxL)
  reference_SxL, _ = log_probabilities(theirs_SxLxV, targets_SxL)
  tokens_Bx2 = pairs(jnp.ones_like(answers_SxL))
  answer = (pairs(log_p_SxL), pairs(reference_SxL), jnp.maximum(tokens_Bx2, 1))
  loss_B = config.train.preference.loss(*answer)
  rewards_Bx2 = config.train.preference.rewards(*answer)
  valid_B = batch['valid'].astype(jnp.float32)
  share_B = valid_B / jnp.maximum(tokens_Bx2.sum(1), 1)
  weights_SxL = answers_SxL * jnp.repeat(share_B, 2)[:, None]
  total = lambda x_B: (x_B * valid_B).sum()
  sums = {
    'loss': total(loss_B),
    'count': valid_B.sum(),
    'correct': total(rewards_Bx2[:, 0] > rewards_Bx2[:, 1]),
    'chosen_reward': total(rewards_Bx2[:, 0]),
    'rejected_reward': total(rewards_Bx2[:, 1]),
    'squared_log_z': (jnp.square(log_z_SxL) * weights_SxL).sum(),
  }
  computed = {'outputs': logits_SxLxV, 'weights': weights_SxL, 'sums': sums}
  kept = {REFERENCE: reference} if REFERENCE in variables['buffers'] else {}
  changed = changed | {'buffers': changed.get('buffers', network['buffers']) | kept}

  def again(new: Any) -> Seen:
    return forward(
      config, new | {'buffers': new['buffers'] | kept}, batch, key, train, sown
    )

  return seen_of(config, network, batch, changed, sown, again, **computed)


def log_probabilities(
  logits_SxLxV: jax.Array, targets_SxL: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Of each token log softmax(logits)[target] and log Z, in float32."""
  logits_SxLxV = logits_SxLxV.astype(jnp.float32)
  log_z_SxL = jax.nn.logsumexp(logits_SxLxV, axis=-1)
  target_SxL = jnp.take_along_axis(logits_SxLxV, targets_SxL[..., None], axis=-1)[..., 0]
  return target_SxL - log_z_SxL, log_z_SxL


def values(sums: dict[str, float]) -> dict[str, float]:
  """Means over pairs; 'margin' is the reward of the chosen answer above the other's."""
  count = max(sums['count'], 1.0)
  chosen, rejected = sums['chosen_reward'] / count, sums['rejected_reward'] / count
  return {
    'loss': sums['loss'] / count,
    'accuracy': sums['correct'] / count,
    'margin': chosen - rejected,
    'chosen_reward': chosen,
    'rejected_reward': rejected,
  }


def eval_values(sums: dict[str, np.ndarray]) -> dict[str, float]:
  """The same over all batches, and 'pairs'."""
  total = {name: float(x.sum()) for name, x in sums.items()}
  return values(total) | {'pairs': total['count']}


def headline(values: dict[str, float]) -> str:
  return f'accuracy {values["eval/accuracy"]:.2%}, margin {values["eval/margin"]:.4g}'


def unit_flops(config: Config, params: Any) -> float:
  """Of a pair: two sequences, each once more forward through the reference."""
  tokens = 2 * config.data.sequence_length
  return tokens * (1 + 1 / 3) * flops(config.model, params, config.length)


PREFERENCE = Task(
  unit='pairs',
  module=language.LANGUAGE.module,
  inputs=language.inputs,
  row_units=lambda config: 1,
  rows=rows,
  prepare=prepared,
  forward=forward,
  train_values=values,
  eval_values=eval_values,
  show=language.show,
  headline=headline,
  unit_flops=unit_flops,
  beside=lambda variables: {REFERENCE: variables},
)
