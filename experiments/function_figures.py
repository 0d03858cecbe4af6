"""Figures of experiments/function_fitting.py, from the checkpoints of its runs."""

import math
import pathlib
from typing import Any

import jax.numpy as jnp
import matplotlib
import numpy as np

from configs.functions import FUNCTIONS, SHAPES
from elas_jax.data import functions
from elas_jax.data.rows import open_rows
from elas_jax.models.classifier import Network
from elas_jax.workdir import Run, open_run
from experiments.harness import Line
from experiments.report import PANELS, save_figure

POINTS, SIDE = 400, 120  # of a curve, of a picture


def draw(lines: list[Line], path: pathlib.Path) -> None:
  """SCALE_fits.png and SCALE_boundaries.png beside `path`, those that have runs here."""
  lines = [line for line in lines if _is_here(line)]
  of_sizes = lambda sizes: [line for line in lines if line.size in sizes]
  one_input = [name for name, inputs in FUNCTIONS.items() if inputs == 1]
  if fits := of_sizes(one_input):
    _draw(fits, path.with_name(f'{path.stem}_fits.png'), _fit)
  if boundaries := of_sizes(SHAPES):
    _draw(boundaries, path.with_name(f'{path.stem}_boundaries.png'), _boundary)


def _is_here(line: Line) -> bool:
  folder = line.runs[0].workdir / 'checkpoints'
  return line.outcomes[0]['status'] == 'finished' and folder.is_dir()


def _draw(lines: list[Line], path: pathlib.Path, panel: Any) -> None:
  matplotlib.use('Agg')  # no display needed
  import matplotlib.pyplot as plt

  count = math.ceil(len(lines) / PANELS)
  figure, panels = plt.subplots(
    count,
    PANELS,
    figsize=(3.2 * PANELS, 2.6 * count),
    layout='constrained',
    squeeze=False,
  )
  for axes in panels.flat[len(lines) :]:
    axes.set_visible(False)
  for line, axes in zip(lines, panels.flat):
    panel(axes, open_run(line.runs[0].workdir, None, {}))
    axes.set_title(f'{line.size}, {line.row.label}', fontsize=9)
  figure.suptitle(f'Seed {lines[0].runs[0].seed}, scale {path.stem.split("_")[0]}')
  save_figure(figure, path)
  print(f'figure: {path}')


def outputs(run: Run, inputs: np.ndarray) -> np.ndarray:
  """What the trained network gives for (n, I) inputs."""
  network = Network(run.config.model)
  return np.asarray(network.apply(run.variables, jnp.asarray(inputs, jnp.float32)))


def _fit(axes: Any, run: Run) -> None:
  """The function, and the trained network over it."""
  function = functions.FUNCTIONS[run.config.data.source]
  x_Nx1 = np.linspace(function.low, function.high, POINTS)[:, None]
  axes.plot(x_Nx1[:, 0], function.formula(x_Nx1), color='0.6', lw=3, label='true')
  axes.plot(x_Nx1[:, 0], outputs(run, x_Nx1)[:, 0], color='C3', lw=1, label='learned')
  axes.legend(fontsize=7)


def _boundary(axes: Any, run: Run) -> None:
  """The share of class 1 over the plane, and validation points."""
  edge = np.linspace(-1.2, 1.2, SIDE)
  x, y = np.meshgrid(edge, edge)
  logits = outputs(run, np.stack([x.ravel(), y.ravel()], axis=1))
  share = 1 / (1 + np.exp(np.clip(logits[:, 0] - logits[:, 1], -50, 50)))
  picture = share.reshape(SIDE, SIDE)
  axes.imshow(
    picture, extent=(-1.2, 1.2) * 2, origin='lower', cmap='coolwarm', vmin=0, vmax=1
  )
  rows = open_rows(run.config.data).validation
  colours = np.where(rows.targets == 1, 'darkred', 'navy')
  axes.scatter(*rows.inputs.T, c=colours, s=2)
  axes.set_aspect('equal')
