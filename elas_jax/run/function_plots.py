"""What a small trained network computes, drawn into given axes: fits, edges, boundaries."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from elas_jax.data import functions
from elas_jax.models.classifier import Network
from elas_jax.run.workdir import Run

POINTS, SIDE = 400, 120  # of a curve, of a picture
SHOWN_EDGES = 3  # of each input


def outputs(run: Run, inputs: np.ndarray) -> np.ndarray:
  """What the trained network gives for (n, I) inputs."""
  network = Network(run.config.model)
  return np.asarray(network.apply(run.variables, jnp.asarray(inputs, jnp.float32)))


def fit(axes: Any, run: Run) -> None:
  """The function of one input, and the trained network over it."""
  function = functions.FUNCTIONS[run.config.data.source.name]
  x_Nx1 = np.linspace(function.low, function.high, POINTS)[:, None]
  axes.plot(x_Nx1[:, 0], function.formula(x_Nx1), color='0.6', lw=3, label='true')
  axes.plot(x_Nx1[:, 0], outputs(run, x_Nx1)[:, 0], color='C3', lw=1, label='learned')
  axes.legend(fontsize=7)


def edge_functions(run: Run) -> tuple[np.ndarray, np.ndarray]:
  """Points (n,) and phi (n, I, O), the functions on the edges of the trained first layer.

  phi_io(x) is what output o gets from x at input i alone, less its mean over x: of layers
  that are sums of functions of one input each.
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


def edges(axes: Any, run: Run) -> None:
  """The edges of the first layer that change most, of each input."""
  x_N, phi_NxIxO = edge_functions(run)
  for number in range(phi_NxIxO.shape[1]):
    of_input = phi_NxIxO[:, number]
    strongest = np.argsort(np.ptp(of_input, axis=0))[::-1][:SHOWN_EDGES]
    for place, output in enumerate(strongest):
      label = f'x{number + 1}' if place == 0 else None
      axes.plot(x_N, of_input[:, output], color=f'C{number}', lw=1, label=label)
  axes.legend(fontsize=7)


def boundary(axes: Any, run: Run) -> None:
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
