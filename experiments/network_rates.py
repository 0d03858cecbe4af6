"""Picks learning rates of classifiers and regressors at the proxy scale, before tables.

  python -m experiments.network_rates --scale=smoke
  python -m experiments.network_rates --scale=proxy

The same five rates for every kind of network, for half of the steps and with a seed that no
table uses, by validation loss; what is best at an edge of the grid is said to be. Stacks,
vit and kat on digits have one rate each, and so have the wider MLP and AF-KAN. Functions
and shapes are one small net, whose rate is that of exp_sin_square.
experiments.quadratic_table has rates of its own, row by row, since they are what its nets
bear or do not bear. The paper's scale has those of configs/.
Hardware: two CPU cores, 140 runs of 250 or 500 steps, about 18 minutes on one of them.
Expected: experiments/results/network_rates/proxy.md.
"""

from typing import Any

from elas_jax.config.cli import run_command
from experiments import networks, rates
from experiments.function_fitting import MODELS as FITS
from experiments.harness import Experiment, main
from experiments.kan_table import BUDGET_OF
from experiments.kan_table import MODELS as KANS
from experiments.kat_vs_mlp import MODELS as TRANSFORMERS
from experiments.runs import Row, Setting

GRID = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
SEED = 1000
DIGITS, FUNCTION = (networks.RATE_SIZES[x] for x in (networks.IMAGES, networks.POINTS))
SPECS = {
  DIGITS: f'{networks.IMAGES}:{{size}},{{method}}',
  FUNCTION: f'{networks.POINTS}:{{size}},{{method}}',
}
MODELS = {DIGITS: tuple(dict.fromkeys((*KANS, *TRANSFORMERS))), FUNCTION: FITS}
# Those whose wider nets, at the parameters of BUDGET_OF, have rates of their own.
EQUAL = {DIGITS: ('mlp', 'af_kan'), FUNCTION: ('mlp',)}
STEPS = {DIGITS: 250, FUNCTION: 500}  # half of the tables'


def rows(setting: Setting, size: str) -> list[Row]:
  smoke = setting.scale == 'smoke'
  steps = networks.SMOKE['train.steps'] if smoke else STEPS[size]
  length = {'train.steps': steps, 'eval.every': steps}
  kinds = [(method, method, {}) for method in MODELS[size]]
  spec = SPECS[size]
  if not smoke:
    kinds += [
      (f'{method}_equal', method, {'model.width': equal_width(setting, size, method)})
      for method in EQUAL[size]
    ]
  return [
    Row(f'{label}_{rate:g}', method, {rates.RATE: rate} | length | fields, config=spec)
    for label, method, fields in kinds[: 2 if smoke else None]
    for rate in GRID
  ]


def equal_width(setting: Setting, size: str, method: str) -> int:
  model = lambda name: setting.config(name, size, {rates.RATE: 1.0}, SPECS[size]).model
  return networks.equal_width(model(method), networks.parameters(model(BUDGET_OF)))


def conclude(entries: list[dict[str, Any]]) -> tuple[Any, list[str]]:
  return rates.conclude(entries, 'eval/loss', named)


def named(entry: dict[str, Any]) -> str:
  """'digits,mlp_equal': as the tables ask for it."""
  kind = entry['label'].rpartition('_')[0]
  return networks.rate_name(entry['size'], kind)


EXPERIMENT = Experiment(
  name='network_rates',
  title='Learning rates of networks on rows: a grid per kind',
  rows=rows,
  family=networks.NETWORKS,
  scales=networks.scales('', proxy=(DIGITS, FUNCTION), paper=()),
  metrics=(('eval/loss', 'validation loss', 4), *networks.ACCURACY[:1]),
  conclude=conclude,
  first_seed=SEED,
  seeds=1,
)

if __name__ == '__main__':
  run_command(lambda: main(EXPERIMENT))
