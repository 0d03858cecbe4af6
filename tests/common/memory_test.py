"""The memory of this machine, and of the group that this process may use of it."""

import re

import jax
import pytest

from elas_jax.common import memory
from elas_jax.common.memory import control_group_limits


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


def test_no_limit_where_none_is_known(monkeypatch):
  monkeypatch.setattr(memory, 'device_memory', lambda: None)
  assert memory.missing_memory({'parameters': 10**18}) is None
