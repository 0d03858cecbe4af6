"""What a run needs of memory is bounded from below; what surely is not there is refused."""

import math
import re
from types import SimpleNamespace

import jax
import pytest

from elas_jax.common import memory
from elas_jax.common.errors import UserError
from elas_jax.common.memory import control_group_limits
from elas_jax.data import functions
from elas_jax.run.dry_run import dry_run, step_bytes
from elas_jax.run.memory import (
  kept_bytes,
  output_bytes,
  training_bytes,
)
from elas_jax.run.sharding import make_mesh
from elas_jax.run.state import abstract_state, create_state
from elas_jax.train import jit_train_step, train
from tests.tasks.networks import tiny


def total_of_machine():
  with open('/proc/meminfo') as file:
    return int(re.search(r'MemTotal: +(\d+) kB', file.read())[1]) * 1024


def test_memory_of_the_machine():
  found = memory.host_memory()
  limits = control_group_limits()
  assert found == min([total_of_machine(), *limits])
  # Four devices of one machine share it.
  assert len(jax.local_devices()) == 4
  assert memory.device_memory() == found // 4


def write(folder, texts):
  for name, text in texts.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
  'groups, files, limits',
  [
    # Version 2: of the process' own group and of what is around it.
    (
      '0::/user/job\n',
      {'memory.max': 'max\n', 'user/memory.max': '900\n', 'user/job/memory.max': '700\n'},
      [700, 900],
    ),
    # Version 1, and a container that sees only its own folder, at the root.
    (
      '5:cpu:/host/id\n4:memory:/host/id\n0::/\n',
      {'memory/memory.limit_in_bytes': '800\n', 'cpu/memory.limit_in_bytes': '1\n'},
      [800],
    ),
    ('', {'memory.max': '1\n'}, []),
  ],
)
def test_limits_of_a_control_group(tmp_path, groups, files, limits):
  write(tmp_path / 'root', files)
  write(tmp_path, {'groups': groups})
  found = control_group_limits(str(tmp_path / 'groups'), str(tmp_path / 'root'))
  assert sorted(found) == limits


def test_a_system_without_control_groups(tmp_path):
  assert control_group_limits(str(tmp_path / 'absent')) == []


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


def test_frozen_kernels_have_no_gradients(make_config):
  config = make_config(**{'model.linear': 'lora', 'data.batch_size': 4, 'model.rank': 4})
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


def test_no_limit_where_none_is_known(make_config, monkeypatch):
  monkeypatch.setattr(memory, 'device_memory', lambda: None)
  assert memory.missing_memory({'parameters': 10**18}) is None


class Compiled:
  """In place of the training step, to compile nothing."""

  lower = lambda self, *_: self
  compile = lambda self: self
  memory_analysis = lambda self: SimpleNamespace(temp_size_in_bytes=5 * 10**9)


def test_a_dry_run_prints_the_numbers(make_config, monkeypatch, capsys):
  monkeypatch.setattr(memory, 'host_memory', lambda: 400_000)
  found = dry_run(make_config(), lambda *_: Compiled())
  output = capsys.readouterr().out
  assert '(cpu, 0.1 MB)' in output
  assert 'TOO LITTLE for training here: needs at least' in output
  assert re.search(r'gradients and activations, at least +0\.000 GB', output)
  assert re.search(r'gradients and activations, compiled +5\.000 GB', output)
  assert found['step_bytes'] == 5 * 10**9


def test_a_dry_run_of_no_machine_is_refused(make_config, capsys):
  size = 2**20
  config = make_config(**{'model.width': size, 'model.linear': 'dense'})
  with pytest.raises(UserError, match=f'^model.width={size}, .*needs at least .* GB'):
    dry_run(config, lambda *_: pytest.fail('compiles'))
  assert 'TOO LITTLE' in capsys.readouterr().out


@pytest.mark.parametrize('source', ['bessel', 'rings'])
def test_points_that_no_memory_holds(source):
  config = tiny('functions', f'{source},mlp', **{'data.examples': 2**31 - 1}).data
  draw = functions.draw if source == 'bessel' else functions.draw_classes
  with pytest.raises(UserError, match='^data.examples=2147483647: needs at least .* GB'):
    draw(config)
