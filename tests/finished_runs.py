"""Runs that were stopped, and what runs left behind, to compare one with another."""

import contextlib
import json
import pathlib
import shutil
from unittest import mock

import jax

from elas_jax import train
from elas_jax.config.parsing import parse_stored
from elas_jax.run.checkpoint import load_variables
from elas_jax.run.metrics import read_metrics
from elas_jax.run.sharding import make_mesh
from elas_jax.run.state import abstract_state

# Metrics that depend on time, not on the computation.
TIMED = {'train/tokens_per_second', 'train/pairs_per_second', 'train/data_wait_share'}


def train_until(stop, config, workdir):
  """Trains, and stops as a SIGTERM in step `stop` would."""

  @contextlib.contextmanager
  def stop_signals():
    yield lambda step: step == stop

  with mock.patch.object(train, 'stop_signals', stop_signals):
    train.train(config, workdir)


def computed(workdir):
  """The lines of metrics.jsonl, without notes and times."""
  lines = [line for line in read_metrics(workdir)[1] if 'note' not in line]
  return [{k: v for k, v in line.items() if k not in TIMED} for line in lines]


def notes(workdir):
  return [(x['step'], x['note']) for x in read_metrics(workdir)[1] if 'note' in x]


def final_params(workdir):
  """Of the newest checkpoint, with the buffers."""
  config = parse_stored(json.loads(pathlib.Path(workdir, 'config.json').read_text()))
  abstract = abstract_state(config, make_mesh(config)).variables
  return jax.device_get(load_variables(workdir, abstract, None, 'workdir'))


def drop_items(step, *items):
  """Makes the folder of a checkpoint one of before there were these items."""
  path = step / '_CHECKPOINT_METADATA'
  about = json.loads(path.read_text())
  for item in items:
    shutil.rmtree(step / item)
    del about['item_handlers'][item]
  path.write_text(json.dumps(about))
