"""What the kernels take of an H200, from compiling them without one.

The tests marked `aot` need what `make aot` installs. With AOT_RESULTS they leave the table
in that folder.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from pallas_kernels import aot, aot_programs

ROOT = pathlib.Path(__file__).parents[2]
PROGRAMS = {program.name: program for program in aot_programs.programs()}
PTX = """
.visible .entry body_kernel(.param .b64 body_kernel_param_0)
.maxntid 384, 1, 1
	setmaxnreg.dec.sync.aligned.u32 40;
	setmaxnreg.inc.sync.aligned.u32 232;
	{ wgmma.mma_async.sp.sync.aligned.m64n256k32.f32.bf16.bf16 {%f1}, %rd1, %rd2, %r1; }
	wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%f1}, %rd1, %rd2, p, 1, 1, 0, 0;
	wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%f1}, %rd1, %rd2, p, 1, 1, 0, 0;
"""
PTXAS = """
ptxas info    : (C7519) warpgroup.arrive is injected in around line 892 by compiler
ptxas info    : Compiling entry function 'body_kernel' for 'sm_90a'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 16 barriers, 1 bytes smem
"""
SPILLS = '    24 bytes stack frame, 24 bytes spill stores, 40 bytes spill loads'
SERIALISED = (
  'ptxas info : (C7510) Potential Performance Loss: wgmma.mma_async are serialized'
)
PASSES = """
  gpu.launch async [%1] dynamic_shared_memory_size %mpmd_map3A_76 {
  gpu.launch async [%0] dynamic_shared_memory_size %c200736_i32 {
"""


def faults(ptxas: str = PTXAS, ptx: str = PTX, passes: str = PASSES) -> list[str]:
  return aot.Resources.parse(ptx, ptxas, passes).faults(sparse=1, dense=2)


def test_a_report_is_read():
  assert aot.Resources.parse(PTX, PTXAS, PASSES) == aot.Resources(
    threads=384,
    registers=168,
    registers_later=(40, 232),
    spilled=0,
    shared_memory=200_736,
    sparse=1,
    dense=2,
    remarks=('C7519',),
  )
  assert faults() == []


@pytest.mark.parametrize(
  ('changed', 'fault'),
  [
    ({'ptxas': PTXAS + SPILLS}, '88 bytes spilled'),
    ({'ptxas': PTXAS + SERIALISED}, 'ptxas remarks C7510'),
    ({'ptxas': PTXAS.replace('168', '176')}, '176 registers of 168'),
    ({'ptx': PTX.replace('384', '512')}, '168 registers of 128'),
    ({'ptx': PTX.replace('.sp.sync', '.sync')}, '0 sparse products, not 1'),
    ({'ptx': PTX + PTX.splitlines()[-1]}, '3 dense products, not 2'),
    ({'passes': PASSES.replace('200736', '232456')}, '232456 bytes of shared memory'),
  ],
)
def test_what_is_wrong_is_named(changed, fault):
  assert fault in faults(**changed)


def test_all_is_compiled():
  """Every kernel, in every operand layout that it has."""
  names = list(PROGRAMS)
  for axis in (0, 1):
    for transposed in (False, True):
      word = f'axis={axis}-transpose_b={transposed}'
      assert sum(name.startswith('matmul') and word in name for name in names) >= 5
  for words in ('up_compress w_t=True', 'up_compress w_t=False', 'up_compress prune=False'):
    assert any(all(word in name for word in words.split()) for name in names), words
  assert len(PROGRAMS) == len(aot_programs.programs()), 'two of one name'


def test_help():
  command = [sys.executable, '-m', 'pallas_kernels.aot', '--help']
  said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
  assert '--only' in said.stdout


def test_missing_wheels_are_named(monkeypatch):
  monkeypatch.setattr(aot, '_is_there', lambda module: False)
  with pytest.raises(SystemExit, match=r'needs jax-cuda13-plugin, .*: `make aot` installs'):
    aot.main(['--only=nothing'])


@pytest.fixture(scope='module')
def kernels(tmp_path_factory) -> dict[str, list[dict]]:
  """The rows of the table, by program."""
  folder = os.environ.get('AOT_RESULTS') or tmp_path_factory.mktemp('aot')
  folder = (ROOT / folder).resolve()
  (folder / 'resources.json').unlink(missing_ok=True)
  # By itself: the compiler takes its tools and options from the process.
  command = [sys.executable, '-m', 'pallas_kernels.aot', f'--output={folder}']
  subprocess.run(command, cwd=ROOT, check=False)
  rows = json.loads((folder / 'resources.json').read_text())['kernels']
  return {
    name: [row for row in rows if row['name'].partition(', ')[0] == name]
    for name in PROGRAMS
  }


@pytest.mark.aot
@pytest.mark.parametrize('name', PROGRAMS)
def test_compiles_for_an_h200(name, kernels):
  expected = PROGRAMS[name].products
  assert [row['faults'] for row in kernels[name]] == [[]] * len(expected)
  for row, (sparse, dense) in zip(kernels[name], expected):
    assert (row['sparse'], row['dense'], row['spilled']) == (sparse, dense, 0)
    assert row['threads'] * row['registers'] <= 65_536
    assert row['shared_memory'] <= 227 * 1024
    assert set(row['remarks']) <= {'C7519'}
