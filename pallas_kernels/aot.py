"""Compiles the kernels for an H200 without having one, and checks what they take of it.

  python -m pallas_kernels.aot [--only=REGEX] [--output=DIR]
  make aot                     the same by its tests, with what it needs installed

It needs the CUDA plugin of JAX and the tools of two NVIDIA wheels, but no driver. ptxas is
that of the wheels, wherever else there is one: version 13.0 is what a machine of CUDA 13.0
has, and later ones spill less.

Each kernel must have the tensor-core instructions of a step and no more; spill nothing; be
launched with no more registers than its threads have (168 for 384 threads, 128 for 512:
ptxas knows no more registers than these, so that 192 x 256 by three warpgroups is more than
it compiles); fit into shared memory; and not have its asynchronous products serialised
(ptxas says so: C7510). C7519, "warpgroup.arrive is injected", is harmless: ptxas adds a
fence that a product needs.
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from pallas_kernels.aot_programs import Program, programs
from pallas_kernels.two_four import dispatch

SHARED_MEMORY = 232_448  # bytes that a CTA may have: 227 KB
REGISTERS = 65_536  # of a multiprocessor
HARMLESS = ('C7519',)  # see above
WHEELS = ('jax-cuda13-plugin', 'jax-cuda13-pjrt', 'nvidia-cuda-nvcc', 'nvidia-nvvm')
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 150754820096
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 13 minor: 0 }
device_description_str: "NVIDIA H200"
"""


@dataclasses.dataclass(frozen=True)
class Resources:
  """What a compiled kernel takes. Registers are those of a thread."""

  threads: int
  registers: int  # at launch
  registers_later: tuple[int, ...]  # of the warpgroup that copies and of those that compute
  spilled: int  # bytes
  shared_memory: int  # bytes
  sparse: int  # instructions
  dense: int
  remarks: tuple[str, ...]  # codes of what ptxas remarked

  def faults(self, sparse: int, dense: int) -> list[str]:
    """What is wrong, with so many instructions expected."""
    most = REGISTERS // self.threads // 8 * 8  # 168 for 384 threads, 128 for 512
    serious = sorted(set(self.remarks) - set(HARMLESS))
    checks = {
      f'{self.sparse} sparse products, not {sparse}': self.sparse != sparse,
      f'{self.dense} dense products, not {dense}': self.dense != dense,
      f'{self.spilled} bytes spilled': self.spilled > 0,
      f'{self.registers} registers of {most}': self.registers > most,
      f'{self.shared_memory} bytes of shared memory': self.shared_memory > SHARED_MEMORY,
      f'ptxas remarks {", ".join(serious)}': bool(serious),
    }
    return [fault for fault, is_so in checks.items() if is_so]

  @classmethod
  def parse(cls, ptx: str, ptxas: str, passes: str) -> 'Resources':
    """From the program, what ptxas said of it, and MLIR as it was lowered."""
    number = lambda pattern, text: int(re.search(pattern, text)[1])
    spills = re.findall(r'(\d+) bytes spill', ptxas) + re.findall(
      r'(\d+) bytes stack', ptxas
    )
    later = re.findall(r'setmaxnreg\.\w+\.sync\.aligned\.u32\s+(\d+)', ptx)
    return cls(
      threads=number(r'\.maxntid (\d+)', ptx),
      registers=number(r'Used (\d+) registers', ptxas),
      registers_later=tuple(sorted({int(count) for count in later})),
      spilled=sum(map(int, spills)),
      shared_memory=number(r'dynamic_shared_memory_size %c(\d+)_i32', passes),
      sparse=ptx.count('wgmma.mma_async.sp.'),
      dense=ptx.count('wgmma.mma_async.sync.'),
      remarks=tuple(sorted(set(re.findall(r'\b(C\d{4})\b', ptxas)))),
    )


def compiled(program: Program) -> list[Resources]:
  """What each kernel of a program takes."""
  topology = topologies.get_topology_desc(
    platform='cuda', target_config=H200, topology='1x1x1'
  )
  place = NamedSharding(topologies.make_mesh(topology, (1,), ('x',)), PartitionSpec())
  operands = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), program.operands()
  )
  with tempfile.TemporaryDirectory() as folder, _dumping_to(folder):
    with dispatch.building_for(dispatch.H200):
      lowered = jax.jit(program.function).lower(*operands)
    with _quiet():
      lowered.compile()
    files = sorted(
      pathlib.Path(folder).glob('*.ptx'), key=lambda f: int(f.stem.rpartition('_')[2])
    )
    return [
      Resources.parse(
        *(file.with_suffix(x).read_text() for x in ('.ptx', '.ptxas', '.mlir-passes.log'))
      )
      for file in files
    ]


@contextlib.contextmanager
def _dumping_to(folder: str) -> Iterator[None]:
  """Mosaic GPU reads this variable while it compiles."""
  name = 'MOSAIC_GPU_DUMP_TO'
  before = os.environ.get(name)
  os.environ[name] = folder
  try:
    yield
  finally:
    del os.environ[name]
    if before is not None:
      os.environ[name] = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Drops what C++ says: it misses nvdisasm, for each kernel on three lines."""
  kept = os.dup(2)
  with open(os.devnull, 'w') as nothing:
    os.dup2(nothing.fileno(), 2)
  try:
    yield
  finally:
    os.dup2(kept, 2)
    os.close(kept)


def take_tools() -> str:
  """Puts the tools of the wheels first on the path; the version of ptxas.

  Raises:
    SystemExit: if wheels are missing, with what to do.
  """
  spec = importlib.util.find_spec('nvidia.cu13') if _is_there('nvidia') else None
  folders = (
    [pathlib.Path(f) / 'bin' for f in spec.submodule_search_locations] if spec else []
  )
  folders = [folder for folder in folders if (folder / 'ptxas').exists()]
  if not folders or not _is_there('jax_cuda13_plugin'):
    raise SystemExit(
      f'needs {", ".join(WHEELS)}: `make aot` installs them (without their dependencies) '
      'and runs this'
    )
  os.environ['PATH'] = os.pathsep.join([str(folders[0]), os.environ['PATH']])
  said = subprocess.run(['ptxas', '--version'], capture_output=True, text=True, check=True)
  return re.search(r'V([\d.]+)', said.stdout)[1]


def _is_there(module: str) -> bool:
  return importlib.util.find_spec(module) is not None


def measure(program: Program) -> Iterator[dict[str, Any]]:
  """The kernels of a program as rows of the table, with what is wrong."""
  try:
    kernels = compiled(program)
  except Exception as error:  # the table shall have the others
    message = str(error).strip().splitlines()
    yield {'name': program.name, 'faults': [f'{type(error).__name__}: {message[0]}']}
    return
  if len(kernels) != len(program.products):
    fault = f'{len(kernels)} kernels, not {len(program.products)}'
    yield {'name': program.name, 'faults': [fault]}
    return
  for number, (kernel, expected) in enumerate(zip(kernels, program.products)):
    suffix = f', kernel {number + 1}' if len(kernels) > 1 else ''
    row = {'name': program.name + suffix, **dataclasses.asdict(kernel)}
    yield row | {'faults': kernel.faults(*expected)}


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
  yield (
    '| kernel | threads | registers at launch | later | spilled | shared memory | sparse '
    '| dense | ptxas remarks | faults |'
  )
  yield '| --- | --: | --: | --: | --: | --: | --: | --: | --- | --- |'
  for row in rows:
    faults = '; '.join(row['faults']) or 'none'
    if 'threads' not in row:
      yield f'| {row["name"]} {"|  " * 8}| {faults} |'
      continue
    cells = [row['name'], row['threads'], row['registers']]
    cells += ['/'.join(map(str, row['registers_later'])) or '-', row['spilled']]
    cells += [row['shared_memory'], row['sparse'], row['dense']]
    cells += [' '.join(row['remarks']) or '-', faults]
    yield f'| {" | ".join(map(str, cells))} |'


def versions(ptxas: str) -> dict[str, str]:
  git = ['git', 'describe', '--always', '--dirty', '--exclude=*', '--abbrev=40']
  commit = subprocess.run(
    git, capture_output=True, text=True, cwd=pathlib.Path(__file__).parent
  )
  packages = ('jax', 'jaxlib', 'jax-cuda13-plugin', 'nvidia-cuda-nvcc')
  return {
    'commit': commit.stdout.strip() or 'unknown',
    **{name: importlib.metadata.version(name) for name in packages},
    'ptxas': ptxas,
  }


def main(arguments: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--only', default='', help='a regular expression that names match')
  parser.add_argument('--output', type=pathlib.Path, help='folder for resources.{json,md}')
  args = parser.parse_args(arguments)
  found = versions(take_tools())
  jax.config.update('jax_platforms', 'cpu')
  rows = []
  chosen = [program for program in programs() if re.search(args.only, program.name)]
  for number, program in enumerate(chosen, 1):
    for row in measure(program):
      rows.append(row)
      print(f'{number}/{len(chosen)} {row["name"]}: {row["faults"] or "fine"}', flush=True)
  lines = [f'{name} {value}' for name, value in found.items()]
  text = '\n'.join([', '.join(lines), '', *table(rows)]) + '\n'
  print(text, end='')
  if args.output:
    args.output.mkdir(parents=True, exist_ok=True)
    results = {'versions': found, 'kernels': rows}
    text_json = json.dumps(results, indent=1, allow_nan=False) + '\n'
    (args.output / 'resources.json').write_text(text_json)
    (args.output / 'resources.md').write_text(text)
  return int(any(row['faults'] for row in rows))


if __name__ == '__main__':
  sys.exit(main())
