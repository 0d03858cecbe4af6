"""Figures of experiments/function_fitting.py, from the checkpoints of its runs."""

import math
import pathlib
from typing import Any

import jax.numpy as jnp
import matplotlib
import numpy as np

from configs.functions import FUNCTIONS, SHAPES
from elas_jax.data import functions
from elas_jax.models.classifier import Network
from elas_jax.run.workdir import Run, open_run
from experiments.harness import Line
from experiments.report import PANELS, save_figure

POINTS, SIDE = 400, 120  # of a curve, of a picture
# exp(sin(pi x1) + x2^2): a first layer of a KAN can hold both inner functions.
EDGES_OF, SHOWN_EDGES = 'exp_sin_square', 3
# Whose layers are sums of functions of one input each; AF-KAN's are not.
ADDITIVE = ('bspline', 'chebyshev', 'fourier', 'wavelet', 'fast', 's_kan')


def draw(lines: list[Line], path: pathlib.Path) -> None:
  """SCALE_fits.png, _edges.png and _boundaries.png beside `path`.

  Of the rows that are finished. A figure stays as it is if their runs are not all here.
  """
  figures = {
    'fits': ([name for name, inputs in FUNCTIONS.items() if inputs == 1], _fit),
    'edges': ([EDGES_OF], _edges),
    'boundaries': (SHAPES, _boundary),
  }
  for name, (sizes, panel) in figures.items():
    chosen = [
      line
      for line in lines
      if line.size in sizes
      and line.outcomes[0]['status'] == 'finished'
      and (panel != _edges or line.row.method in ADDITIVE)
    ]
    figure = path.with_name(f'{path.stem}_{name}.png')
    if any(not (x.runs[0].workdir / 'checkpoints').is_dir() for x in chosen):
      print(f'figure left as it is: {figure}, not all of its runs are in this folder')
    elif chosen:
      _draw(chosen, figure, panel)


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
  function = functions.FUNCTIONS[run.config.data.source.name]
  x_Nx1 = np.linspace(function.low, function.high, POINTS)[:, None]
  axes.plot(x_Nx1[:, 0], function.formula(x_Nx1), color='0.6', lw=3, label='true')
  axes.plot(x_Nx1[:, 0], outputs(run, x_Nx1)[:, 0], color='C3', lw=1, label='learned')
  axes.legend(fontsize=7)


def edge_functions(run: Run) -> tuple[np.ndarray, np.ndarray]:
  """Points (n,) and phi (n, I, O), the functions on the edges of the trained first layer.

  phi_io(x) is what output o gets from x at input i alone, less its mean over x.
  """
  model = run.config.model
  function = functions.FUNCTIONS[run.config.data.source.name]
  x_N = np.linspace(function.low, function.high, POINTS)
  layer = model.linear.make(model.width, model.parts, name=None)
  variables = {
    kind: tree['network']['layer_0'] for kind, tree in run.variables.items() if tree
  }
  alone_NxIxI = x_N[:, None, None] * np.eye(function.inputs)
  phi_NxIxO = np.asarray(layer.apply(variables, jnp.asarray(alone_NxIxI, jnp.float32)))
  return x_N, phi_NxIxO - phi_NxIxO.mean(0)


def _edges(axes: Any, run: Run) -> None:
  """The edges of the first layer that change most, of each input."""
  x_N, phi_NxIxO = edge_functions(run)
  for number in range(phi_NxIxO.shape[1]):
    of_input = phi_NxIxO[:, number]
    strongest = np.argsort(np.ptp(of_input, axis=0))[::-1][:SHOWN_EDGES]
    for place, output in enumerate(strongest):
      label = f'x{number + 1}' if place == 0 else None
      axes.plot(x_N, of_input[:, output], color=f'C{number}', lw=1, label=label)
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
  rows = run.config.data.source.rows(run.config.data).validation
  colours = np.where(rows.targets == 1, 'darkred', 'navy')
  axes.scatter(*rows.inputs.T, c=colours, s=2)
  axes.set_aspect('equal')
