"""What a run needs of memory is bounded from below; what surely is not there is refused."""

import math
import re
from types import SimpleNamespace

import jax
import pytest

from elas_jax.common import memory
from elas_jax.common.errors import UserError
from elas_jax.config.config import Config, NetworkConfig, RowsConfig
from elas_jax.run.dry_run import dry_run, step_bytes
from elas_jax.run.memory import (
  kept_bytes,
  output_bytes,
  training_bytes,
)
from elas_jax.run.sharding import make_mesh
from elas_jax.run.state import abstract_state, create_state
from elas_jax.run.step import jit_train_step
from elas_jax.systems.architectures import ARCHITECTURES
from elas_jax.train import train


@pytest.mark.conformance
def test_the_state_is_counted_as_it_lies_on_a_device(make_config):
  config = make_config(**{'mesh.data': 2, 'mesh.fsdp': 2})
  on = make_mesh(config)
  found = training_bytes(config, on, abstract_state(config, on))
  state, device = create_state(config, on), jax.devices()[0]

  def held(tree):
    shards = [s for x in jax.tree.leaves(tree) for s in x.addressable_shards]
    return sum(shard.data.nbytes for shard in shards if shard.device == device)

  assert found['parameters'] == held(state.params)
  assert found['optimiser'] == held(state.opt_state)


@pytest.mark.conformance
@pytest.mark.parametrize(
  'fields',
  [
    {'model.remat': 'full', 'model.layers': 8, 'train.accumulation': 2},
    {'model.vocab_size': 8192, 'optimizer.clip_norm': 0.0, 'data.batch_size': 4},
  ],
)
def test_no_compiled_step_needs_less(make_config, fields):
  config = make_config(**{'model.compute_dtype': 'bfloat16', **fields})
  mesh = make_mesh(config, jax.devices()[:1])
  state = abstract_state(config, mesh)
  needed = training_bytes(config, mesh, state)['gradients and activations']
  assert needed <= step_bytes(config, mesh, state, jit_train_step(config, mesh))


def test_the_parts_of_a_step_by_hand(make_config):
  fields = {'model.vocab_size': 300, 'model.compute_dtype': 'bfloat16'}
  config = make_config(**fields)  # D 32, N 2, L 32, B 8
  mesh = make_mesh(config, jax.devices()[:2])
  tokens = 4 * 32  # of a device
  assert output_bytes(config, mesh, 8) == tokens * 300 * 4
  assert kept_bytes(config, mesh, 8) == tokens * 2 * 32 * 2
  needed = training_bytes(config, mesh, abstract_state(config, mesh))
  expected = tokens * (300 * 4 + 2 * 32 * 2)
  assert needed['gradients and activations'] == expected
  # Two micro-batches of half the rows, and all gradients in float32.
  config = make_config(**fields, **{'train.accumulation': 2})
  needed = training_bytes(config, mesh, state := abstract_state(config, mesh))
  entries = sum(math.prod(x.shape) for x in jax.tree.leaves(state.params))
  assert needed['gradients and activations'] == expected // 2 + 4 * entries


@pytest.mark.parametrize(
  'architecture, hidden', [('stack', 3 * 16), ('convnet', 0)], ids=['stack', 'convnet']
)
def test_a_stack_keeps_what_each_layer_reads(architecture, hidden):
  """D 16, depth 3, images of 8 x 8, float32; of other networks the images alone."""
  model = NetworkConfig(ARCHITECTURES[architecture](), (8, 8, 1), width=16, depth=3)
  config = Config(task='classification', model=model, data=RowsConfig())
  mesh = make_mesh(config, jax.devices()[:2])
  assert kept_bytes(config, mesh, 8) == 4 * (8 // 2) * (8 * 8 + hidden)


def test_frozen_kernels_have_no_gradients(make_config):
  config = make_config(
    **{'model.linear': 'lora', 'data.batch_size': 4, 'model.linear.rank': 4}
  )
  mesh = make_mesh(config)
  state = abstract_state(config, mesh)
  everything = sum(math.prod(x.shape) for x in jax.tree.leaves(state.params))
  # Four maps of (D, D) and two of (D, F) in each of two layers, D 32, F 64.
  frozen = 2 * (4 * 32 * 32 + 2 * 32 * 64)
  needed = training_bytes(config, mesh, state)['gradients and activations']
  assert needed == 4 * (everything - frozen)


def test_training_without_the_memory_is_refused_first(make_config, tmp_path, monkeypatch):
  config = make_config()
  monkeypatch.setattr(memory, 'host_memory', lambda: 400_000)
  with pytest.raises(UserError) as error:
    train(config, tmp_path / 'run')
  message = str(error.value)
  assert message.startswith('model.width=32, data.batch_size=8, ')
  assert 'model.layers=2' in message
  assert message.endswith('which has 0.1 MB')
  assert float(re.search('needs at least ([0-9.]+) MB', message)[1]) > 0.1
  assert list(tmp_path.iterdir()) == []


class Compiled:
  """In place of the training step, to compile nothing."""

  lower = lambda self, *_: self
  compile = lambda self: self
  memory_analysis = lambda self: SimpleNamespace(temp_size_in_bytes=5 * 10**9)


def test_a_dry_run_prints_the_numbers(make_config, monkeypatch, capsys):
  monkeypatch.setattr(memory, 'host_memory', lambda: 400_000)
  monkeypatch.setattr('elas_jax.run.dry_run.jit_train_step', lambda *_: Compiled())
  found = dry_run(make_config())
  output = capsys.readouterr().out
  assert '(cpu, 0.1 MB)' in output
  assert 'TOO LITTLE for training here: needs at least' in output
  assert re.search(r'gradients and activations, at least +0\.000 GB', output)
  assert re.search(r'gradients and activations, compiled +5\.000 GB', output)
  assert found['step_bytes'] == 5 * 10**9


def test_a_dry_run_of_no_machine_is_refused(make_config, monkeypatch, capsys):
  size = 2**20
  config = make_config(**{'model.width': size, 'model.linear': 'dense'})
  compiles = lambda *_: pytest.fail('compiles')
  monkeypatch.setattr('elas_jax.run.dry_run.jit_train_step', compiles)
  with pytest.raises(UserError, match=f'^model.width={size}, .*needs at least .* GB'):
    dry_run(config)
  assert 'TOO LITTLE' in capsys.readouterr().out
