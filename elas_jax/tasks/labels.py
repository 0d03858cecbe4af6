"""Classification and regression of rows: images, tables, points of a function.

A batch is dict(inputs (B, ...), targets (B,) or (B, outputs), valid (B,)); a row counts as
one example, or, where it only fills up a batch, as none.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from elas_jax.common.errors import UserError
from elas_jax.config.config import Config
from elas_jax.data.rows import PreparedRows
from elas_jax.models.classifier import Network
from elas_jax.ops.augment import AUGMENTATIONS
from elas_jax.systems.seen import Seen
from elas_jax.tasks.task import Batch, Sums, Task, mutable, seen_of


def inputs(config: Config) -> jax.Array:
  return jnp.zeros((1, *config.model.input_shape))


def rows(config: Config, count: int) -> Batch:
  array = jax.ShapeDtypeStruct
  classes = config.task == 'classification'
  shape, kind = ((), jnp.int32) if classes else ((config.model.outputs,), jnp.float32)
  return {
    'inputs': array((count, *config.model.input_shape), jnp.float32),
    'targets': array((count, *shape), kind),
    'valid': array((count,), jnp.int32),
  }


def prepared(config: Config, tokenizer: None = None) -> PreparedRows:
  """The rows, which must be what the network takes and gives."""
  data = config.data.source.rows(config.data)
  row = data.train.read([0])
  shape = row['inputs'].shape[1:]
  if shape != config.model.input_shape:
    raise UserError(
      f'model.input_shape={config.model.input_shape}: must be {shape} for '
      f'{config.data.source.shown()}'
    )
  classes = np.issubdtype(row['targets'].dtype, np.integer)
  needed = 'classification' if classes else 'regression'
  if config.task != needed:
    raise UserError(
      f'task={config.task!r}: must be {needed!r} for {config.data.source.shown()}'
    )
  outputs = len(data.class_names) if classes else row['targets'].shape[1]
  if config.model.outputs != outputs:
    raise UserError(
      f'model.outputs={config.model.outputs}: must be {outputs} for '
      f'{config.data.source.shown()}'
    )
  return data


def forward(
  sums_of: Callable[..., Sums],
  config: Config,
  variables: Any,
  batch: Batch,
  key: jax.Array,
  train: bool,
  sown: Sequence[str] = (),
) -> Seen:
  """One pass; `sums_of` makes sums of (config, outputs (B, outputs), weights, batch)."""
  x = batch['inputs']
  if train:
    x = AUGMENTATIONS[config.data.augment](key, x)
  out, changed = Network(config.model).apply(
    variables,
    x,
    train,
    rngs={'noise': jax.random.fold_in(key, 1)},  # augmentations take the key itself
    mutable=mutable(train, sown),
  )
  out, weights_B = out.astype(jnp.float32), batch['valid'].astype(jnp.float32)
  computed = {
    'outputs': out,
    'weights': weights_B,
    'sums': sums_of(config, out, weights_B, batch, train),
  }
  again = lambda variables: forward(sums_of, config, variables, batch, key, train, sown)
  return seen_of(config, variables, batch, changed, sown, again, **computed)


def classification_sums(
  config: Config, logits_BxC: jax.Array, weights_B: jax.Array, batch: Batch, train: bool
) -> Sums:
  """Cross-entropy with label smoothing in training, hits; confusion (C, C) otherwise."""
  C = config.model.outputs
  wanted_BxC = jax.nn.one_hot(batch['targets'], C)
  smoothing = config.model.label_smoothing if train else 0.0
  loss_B = optax.softmax_cross_entropy(
    logits_BxC, optax.smooth_labels(wanted_BxC, smoothing)
  )
  chosen_BxC = jax.nn.one_hot(logits_BxC.argmax(1), C)
  squared_log_z_B = jnp.square(jax.nn.logsumexp(logits_BxC, axis=1))
  sums = {
    'loss': (loss_B * weights_B).sum(),
    'squared_log_z': (squared_log_z_B * weights_B).sum(),
    'count': weights_B.sum(),
    'correct': ((wanted_BxC * chosen_BxC).sum(1) * weights_B).sum(),
  }
  if not train:
    sums['confusion'] = jnp.einsum('b,bi,bj->ij', weights_B, wanted_BxC, chosen_BxC)
  return sums


def classification_values(sums: dict[str, float]) -> dict[str, float]:
  count = max(sums['count'], 1.0)
  return {'loss': sums['loss'] / count, 'accuracy': sums['correct'] / count}


def classification_eval(sums: dict[str, np.ndarray]) -> dict[str, float]:
  """'loss' (nats), 'accuracy', 'f1' (macro, over the classes), 'examples'."""
  total = {name: values.sum(0) for name, values in sums.items()}
  confusion = total['confusion']  # rows: the true class
  hits, per_class = np.diag(confusion), confusion.sum(0) + confusion.sum(1)
  present = per_class > 0
  return {
    'loss': float(total['loss'] / total['count']),
    'accuracy': float(total['correct'] / total['count']),
    'f1': float((2 * hits[present] / per_class[present]).mean()),
    'examples': float(total['count']),
  }


def regression_sums(
  config: Config, out_BxO: jax.Array, weights_B: jax.Array, batch: Batch, train: bool
) -> Sums:
  """Squared errors, averaged over the outputs."""
  del config
  loss_B = jnp.square(out_BxO - batch['targets']).mean(1)
  sums = {'loss': (loss_B * weights_B).sum(), 'count': weights_B.sum()}
  if not train:
    sums['squares'] = (jnp.square(batch['targets']) * weights_B[:, None]).sum(0)
    sums['targets'] = (batch['targets'] * weights_B[:, None]).sum(0)
  return sums


def regression_values(sums: dict[str, float]) -> dict[str, float]:
  loss = sums['loss'] / max(sums['count'], 1.0)
  return {'loss': loss, 'rmse': loss**0.5}


def regression_eval(sums: dict[str, np.ndarray]) -> dict[str, float]:
  """'loss' (mean squared error), 'rmse', 'r2' (1 - error / variance), 'examples'."""
  total = {name: values.sum(0) for name, values in sums.items()}
  loss, count = float(total['loss'] / total['count']), float(total['count'])
  means = total['targets'] / count
  variance = float((total['squares'] / count - means**2).mean())
  r2 = 1 - loss / variance if variance > 0 else float('nan')
  return {'loss': loss, 'rmse': loss**0.5, 'r2': r2, 'examples': count}


def show(config: Config, state: Any, data: PreparedRows) -> None:
  """Nothing beyond the plots of every run."""


def classification_headline(values: dict[str, float]) -> str:
  return f'accuracy {values["eval/accuracy"]:.2%}, macro F1 {values["eval/f1"]:.4f}'


def regression_headline(values: dict[str, float]) -> str:
  r2 = values['eval/r2']  # None: the targets are all the same
  return f'RMSE {values["eval/rmse"]:.4g}, R2 {"undefined" if r2 is None else f"{r2:.4f}"}'


COMMON = {
  'unit': 'examples',
  'module': lambda config: Network(config.model),
  'inputs': inputs,
  'row_units': lambda config: 1,
  'rows': rows,
  'prepare': prepared,
  'show': show,
}
CLASSIFICATION = Task(
  **COMMON,
  forward=functools.partial(forward, classification_sums),
  train_values=classification_values,
  eval_values=classification_eval,
  headline=classification_headline,
)
REGRESSION = Task(
  **COMMON,
  forward=functools.partial(forward, regression_sums),
  train_values=regression_values,
  eval_values=regression_eval,
  headline=regression_headline,
)
