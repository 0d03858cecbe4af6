"""What the figures of small trained networks show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from configs import functions
from elas_jax.config.parsing import parse
from elas_jax.run import function_plots
from elas_jax.run.state import init_variables
from elas_jax.run.workdir import Run
from tests.conftest import thinned

# Layers that are sums of functions of one input each.
ADDITIVE = ('bspline', 'chebyshev', 'fourier', 'wavelet', 'fast', 's_kan')


@pytest.mark.parametrize('method', thinned(ADDITIVE, 'chebyshev'))
def test_edges_of_a_layer_add_up_to_it(method):
  config = parse(functions.get_config(f'exp_sin_square,{method}'))
  variables = jax.jit(lambda: init_variables(config))()
  run = Run(config, 0, variables, None, None)
  x_N, phi_NxIxO = function_plots.edge_functions(run)
  axes = Figure().subplots()
  function_plots.edges(axes, run)
  assert len(axes.lines) == 2 * function_plots.SHOWN_EDGES
  model = config.model
  layer = model.linear.make(model.width, model.parts, name=None)
  own = {kind: tree['network']['layer_0'] for kind, tree in variables.items() if tree}
  out = lambda *x: np.asarray(layer.apply(own, jnp.array([x], jnp.float32)))[0]
  for one, other in ((0, 150), (399, 70)):
    added = phi_NxIxO[one, 0] + phi_NxIxO[other, 1] - phi_NxIxO[70].sum(0)
    expected = out(x_N[one], x_N[other]) - out(x_N[70], x_N[70])
    np.testing.assert_allclose(added, expected, atol=1e-5)
