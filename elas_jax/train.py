"""Training: the main job.

  python -m elas_jax.train --config=configs/default.py --workdir=runs/default
  python -m elas_jax.train --config=configs/c4.py:130m,low_rank \
      --config.data.source.path='c4/*.json.gz' --workdir=runs/c4_130m

Every field of the config can be overridden (--config.model.linear.rank=16), and every kind
named (--config.model.linear=lora, which sets its defaults); --help=SECTION lists them.
Starting the same command again continues the run. --dry_run prints parameters and memory
and stops.

Several machines with a common file system run the same command each, with
--processes=auto under SLURM, Open MPI, Kubernetes or on a TPU pod, and elsewhere with
--processes=HOST:PORT,INDEX,COUNT.
"""

import contextlib
import errno
import functools
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from elas_jax.common.errors import UserError
from elas_jax.common.memory import check_memory
from elas_jax.common.places import place
from elas_jax.config.checks import profile_window
from elas_jax.config.cli import DEFAULT_CONFIG, Parser, load_config, run_command
from elas_jax.config.config import Config, at_step, to_json
from elas_jax.config.help import help_on, sections
from elas_jax.config.parsing import parse
from elas_jax.data.pipeline import train_batches
from elas_jax.run import continuation, diverged, objectives
from elas_jax.run import workdir as workdirs
from elas_jax.run.checkpoint import Checkpoints, load_variables
from elas_jax.run.evaluation import evaluate, put_batch
from elas_jax.run.host_memory import keep_freed_memory, share_one_arena
from elas_jax.run.kernel_checks import check_kernels_here
from elas_jax.run.log import Log, NonFinite, Trace, open_log, print_once
from elas_jax.run.measures import Measures
from elas_jax.run.memory import sizes, training_bytes
from elas_jax.run.metrics import read_metrics
from elas_jax.run.plots import plot_run
from elas_jax.run.saved import steps_in
from elas_jax.run.sharding import join_processes, make_mesh
from elas_jax.run.signals import stop_signals
from elas_jax.run.state import TrainState, abstract_state, create_state, state_from
from elas_jax.run.step import jit_train_step
from elas_jax.tasks import task_of
from elas_jax.tasks.task import of_network


def train(config: Config, workdir: str | pathlib.Path) -> dict[str, float]:
  """Runs, or continues, the run in `workdir`; returns its last evaluation."""
  workdir = place('--workdir', workdir)
  check_kernels_here(config)
  objectives.check(config)
  mesh = make_mesh(config)
  needed = training_bytes(config, mesh, abstract_state(config, mesh))
  check_memory(sizes(config), needed)
  if config.train.compilation_cache:
    folder = place('train.compilation_cache', config.train.compilation_cache)
    jax.config.update('jax_compilation_cache_dir', str(folder))
  past = continuation.past_of(workdir)
  said = continuation.check_config(past, config) if past else []
  data = task_of(config).prepare(config, continuation.own_tokenizer(past, config))
  said += continuation.check_data(past, config, data)
  batches = train_batches(
    data.train,
    batch_size=config.data.batch_size,
    seed=config.seed,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    read_threads=config.data.read_threads,
    prefetch=config.data.prefetch,
  )
  try:
    with (
      workdirs.locked(workdir),
      stop_signals() as stop,
      contextlib.closing(Checkpoints(workdir, config.checkpoint)) as checkpoints,
    ):
      state = starting_state(config, mesh, checkpoints, batches)
      if (step := int(state.step)) != (past.step if past else 0):
        # Not the checkpoint that was looked at: somebody has trained there meanwhile.
        past = continuation.load_past(workdir, '--workdir', step)
        said = continuation.check_config(past, config)
        said += continuation.check_data(past, config, data)
      workdirs.write_config(workdir, config)
      if not jax.process_index():
        diverged.forget(workdir)
      log = open_log(config, workdir, state, said)
      state = run_steps(config, workdir, mesh, data, batches, checkpoints, state, log, stop)
      checkpoints.wait()
    return report(config, workdir, data, state)
  except BrokenPipeError:
    raise
  except NonFinite as error:
    if not jax.process_index():
      diverged.mark(workdir, error.step, str(error))
    raise diverged.Diverged(_what_happened(error, workdir), error.step) from error
  except OSError as error:
    raise UserError(_what_happened(error, workdir)) from error


def run_steps(
  config: Config,
  workdir: pathlib.Path,
  mesh: Mesh,
  data: Any,
  batches: Any,
  checkpoints: Checkpoints,
  state: TrainState,
  log: Log,
  stop: Callable[[int], bool],
) -> TrainState:
  """The loop, from wherever the run stands to its last step or the stop signal."""
  start, steps = int(state.step), config.train.steps
  measures = Measures(config, data.validation, mesh)
  step_functions = functools.cache(lambda now: jit_train_step(config, mesh, now))
  trace = Trace(profile_window(config), workdir / 'profile')
  saved = (json.loads(to_json(config)), data.describe(), data.record())

  def save(step, state, loss=None):
    with log.pause():
      log.sync()  # what a resumed run will not compute again must not be lost
      if not all_finite(state.params):
        raise NonFinite(step, 'parameters are not finite')
      checkpoints.save(state, batches, *saved, loss)

  with contextlib.closing(log), contextlib.closing(trace), jax.set_mesh(mesh):
    if start and start % config.eval.every == 0:
      measures.resume(at_step(config, start), start, state.variables)
    for step in range(start + 1, steps + 1):
      trace.before(step)
      with log.waiting():
        batch = next(batches)
      now = at_step(config, step)
      state, metrics = step_functions(now)(state, put_batch(batch, mesh))
      log.push(step, metrics)
      trace.after(step, state)
      if measures.due(step):
        with log.pause():
          changes = measures.change(now, state.variables)
        log.write(step, changes)
      stopping, loss = stop(step), None
      if stopping:
        save(step, state)  # before an evaluation: there may be little time left
      if step == steps or step % config.eval.every == 0:
        with log.pause():
          values = evaluate(now, state.variables, data.validation, mesh)
          values |= measures.measure(now, step, state.variables)
        log.write(step, values)
        loss = values['eval/loss']
        if not math.isfinite(loss):
          raise NonFinite(step, f'eval/loss={loss}')
      if stopping:
        print_once(f'stopped after step {step}, saved; the same command continues')
        break
      if step == steps or step % config.checkpoint.every == 0:
        save(step, state, loss)
  return state


@jax.jit
def all_finite(params: Any) -> jax.Array:
  return jnp.array([jnp.isfinite(x).all() for x in jax.tree.leaves(params)]).all()


def starting_state(
  config: Config, mesh: Mesh, checkpoints: Checkpoints, batches: Any
) -> TrainState:
  """Own workdir first, then --config.restore, then scratch; see checkpoint.py."""
  abstract = abstract_state(config, mesh)
  if checkpoints.latest_step is not None:
    state = checkpoints.restore(abstract, batches)
    print_once(f'continuing after step {int(state.step)}')
    return state
  if not config.restore:
    return create_state(config, mesh)
  of_checkpoint = of_network(abstract.variables)
  variables = load_variables(config.restore, of_checkpoint, None, 'restore')
  print_once(f'starting from the parameters in {config.restore}')
  shardings = jax.tree.map(lambda x: x.sharding, abstract)
  start = jax.jit(functools.partial(state_from, config), out_shardings=shardings)
  return start(variables)


def _what_happened(error: Exception, workdir: pathlib.Path) -> str:
  # Read off the disk: Orbax would wait for the other processes, which may be gone.
  found = steps_in(workdir / 'checkpoints')
  saved = f'last good checkpoint: step {found[-1]}' if found else 'no checkpoint yet'
  if isinstance(error, NonFinite):
    return f'training diverged at {error}; {saved} in {workdir}'
  if error.errno in (errno.ENOSPC, errno.EDQUOT):
    return f'no space left for {workdir}; {saved}; free some and start again'
  return f'{error}; {saved} in {workdir}'


def report(
  config: Config, workdir: pathlib.Path, data: Any, state: TrainState
) -> dict[str, float]:
  """Plots, what the task has to show, and the paths; returns the last evaluation."""
  if jax.process_index():
    return {}
  _, lines = read_metrics(workdir)
  plot_run(workdir)
  evaluations = [line for line in lines if 'eval/loss' in line]
  task = task_of(config)
  task.show(config, state, data)
  if evaluations:
    last = evaluations[-1]
    print(f'validation at step {last["step"]}: {task.headline(last)}')
  print(f'plots        {workdir}/plots/*.png\nmetrics      {workdir}/metrics.jsonl')
  print(f'checkpoint   {workdir}/checkpoints/{int(state.step)}')
  return evaluations[-1] if evaluations else {}


def main(arguments: list[str] | None = None) -> None:
  parser = Parser(
    prog='python -m elas_jax.train',
    description='Train a model, or continue to.',
    epilog='Any field of the config can be overridden: --config.train.steps=100. '
    '--help=model lists the fields of a section, --help=model.linear its kinds, '
    '--help=model.linear.lora the fields of one. Sections: ' + ', '.join(sections()),
    add_help=False,
  )
  add = parser.add_argument
  config_help = 'FILE.py or FILE.py:ARGUMENT; default: configs/default.py'
  add('--config', default=DEFAULT_CONFIG, help=config_help)
  parser.add_place('--workdir', help='folder of the run; the same folder continues it')
  add('--processes', help="of several machines: 'auto', or HOST:PORT,INDEX,COUNT")
  add('--dry_run', action='store_true', help='print parameters and memory, train nothing')
  add('--help', nargs='?', const='', metavar='SECTION', help='this, or a section')
  options, overrides = parser.parse_known_args(arguments)
  if options.help is not None:
    print(help_on(options.help) if options.help else parser.format_help())
    return
  share_one_arena()
  if options.processes is not None:
    join_processes(options.processes)
  if jax.default_backend() == 'cpu':
    keep_freed_memory()
  config = parse(load_config(options.config, overrides))
  if options.dry_run:
    from elas_jax.run.dry_run import dry_run

    dry_run(config)
  elif not options.workdir:
    raise UserError('--workdir: missing; give a folder for checkpoints and metrics')
  else:
    train(config, options.workdir)


if __name__ == '__main__':
  run_command(main)
