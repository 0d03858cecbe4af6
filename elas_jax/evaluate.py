"""Evaluation: loss, perplexity and bits per byte on the validation split.

  python -m elas_jax.evaluate --workdir=DIR

prints and writes DIR/evaluation.json for the newest checkpoint of a run.
"""

import functools
import json
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from elas_jax.cli import Parser, run_command
from elas_jax.config import Config, ModelConfig
from elas_jax.data.blocks import BlockSet
from elas_jax.data.pipeline import eval_batches
from elas_jax.log import exp
from elas_jax.models.decoder import Decoder
from elas_jax.ops.loss import cross_entropy_sums
from elas_jax.sharding import batch_sharding

Batch = dict[str, Any]  # tokens (B, L+1), valid (B,), bytes (B,); see data/pipeline.py


def loss_sums(
  model: ModelConfig, variables: Any, batch: Batch, key: jax.Array, train: bool = False
) -> tuple[dict[str, jax.Array], Any]:
  """Sums over the valid targets of a batch: nll, squared log Z, tokens, bytes.

  Returns them with the buffers, which change only if `train`; `key` is for layers that
  draw numbers.
  """
  inputs_BxL, targets_BxL = batch['tokens'][:, :-1], batch['tokens'][:, 1:]
  positions_1xL = jnp.arange(inputs_BxL.shape[1])[None, :]
  weights_BxL = (positions_1xL < batch['valid'][:, None]).astype(jnp.float32)
  (logits_BxLxV, _), changed = Decoder(model).apply(
    variables, inputs_BxL, rngs={'two_four': key}, mutable=['buffers'] if train else []
  )
  nll, squared_log_z = cross_entropy_sums(logits_BxLxV, targets_BxL, weights_BxL)
  sums = {
    'nll': nll,
    'squared_log_z': squared_log_z,
    'tokens': weights_BxL.sum(),
    'bytes': batch['bytes'].astype(jnp.float32).sum(),
  }
  return sums, changed.get('buffers', variables['buffers'])


@functools.partial(jax.jit, static_argnames='model')
def eval_step(model: ModelConfig, variables: Any, batch: Batch) -> dict[str, jax.Array]:
  return loss_sums(model, variables, batch, jax.random.key(0))[0]


def put_batch(batch: Batch, mesh: Mesh) -> Batch:
  """This process's rows of a batch as global arrays, rows split over data and fsdp."""
  sharding = batch_sharding(mesh)
  return {
    name: jax.make_array_from_process_local_data(sharding, value)
    for name, value in batch.items()
  }


def evaluate(
  config: Config, variables: Any, blocks: BlockSet, mesh: Mesh
) -> dict[str, float]:
  """Token-weighted metrics over eval.tokens targets of the split (0: all of it).

  Returns 'eval/loss' (nats a token), 'eval/perplexity', 'eval/bits_per_byte',
  'eval/tokens', and, to compare with the tables of GaLore, SLTrain, LORO, CoLA and
  ELAS, 'eval/published_loss' and 'eval/published_perplexity': their evaluation loops
  print the sum of the n batch means divided by n + 1, which is too low by a factor
  n / (n + 1) and not weighted by tokens.
  """
  batches = eval_batches(
    blocks,
    batch_size=config.eval.batch_size,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    max_tokens=config.eval.tokens,
  )
  sums = []
  with jax.set_mesh(mesh):
    for batch in batches:
      sums.append(eval_step(config.model, variables, put_batch(batch, mesh)))
  sums = {k: np.array([float(s[k]) for s in sums]) for k in ('nll', 'tokens', 'bytes')}
  total = {name: float(values.sum()) for name, values in sums.items()}
  loss = total['nll'] / total['tokens']
  full = sums['tokens'] > 0
  means = sums['nll'][full] / sums['tokens'][full]
  published = float(means.sum()) / (len(means) + 1)
  return {
    'eval/loss': loss,
    'eval/perplexity': exp(loss),
    'eval/bits_per_byte': total['nll'] / total['bytes'] / math.log(2),
    'eval/tokens': total['tokens'],
    'eval/published_loss': published,
    'eval/published_perplexity': exp(published),
  }


def main(arguments: list[str] | None = None) -> None:
  from elas_jax import workdir as workdirs

  parser = Parser(
    prog='python -m elas_jax.evaluate', description='Evaluate a checkpoint of a run.'
  )
  parser.add_argument('--workdir', required=True, help='folder of the run')
  parser.add_argument('--step', type=int, help='checkpoint; default: the newest')
  parser.add_argument(
    '--tokens', type=int, help='validation tokens, 0 = the whole split; default: all'
  )
  parser.add_argument('--batch_size', type=int, help="default: the run's")
  options = parser.parse_args(arguments)
  run = workdirs.open_run(
    options.workdir,
    options.step,
    {'eval.tokens': options.tokens or 0, 'eval.batch_size': options.batch_size},
  )
  result = {'step': run.step}
  result |= evaluate(run.config, run.variables, run.prepared().validation, run.mesh)
  path = pathlib.Path(options.workdir) / 'evaluation.json'
  workdirs.write_text(path, json.dumps(result, indent=2) + '\n')
  for name, value in result.items():
    print(f'{name:28s} {value:,.6g}')
  print(f'written to {path}')


if __name__ == '__main__':
  run_command(main)
