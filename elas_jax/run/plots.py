"""Curves of a run as PNG, from its metrics.jsonl."""

import pathlib
from typing import Any

import numpy as np

from elas_jax.run import fits, measures
from elas_jax.run.metrics import read_metrics
from elas_jax.systems.measures import MEASURES

# (file, title, series of (metric, label), logarithmic)
CURVES = (
  (
    'loss.png',
    'Loss (nats per token or example, or squared error)',
    (('train/loss', 'train'), ('eval/loss', 'validation')),
    False,
  ),
  (
    'bits_per_byte.png',
    'Bits per byte',
    (('train/bits_per_byte', 'train'), ('eval/bits_per_byte', 'validation')),
    False,
  ),
  (
    'optimizer.png',
    'Optimiser',
    (('train/learning_rate', 'learning rate'), ('train/grad_norm', 'gradient norm')),
    True,
  ),
  (
    'accuracy.png',
    'Accuracy',
    (('train/accuracy', 'train'), ('eval/accuracy', 'validation')),
    False,
  ),
  (
    'rewards.png',
    'Rewards of the answers',
    tuple(
      (f'{split}/{answer}_reward', f'{title}, {answer}')
      for split, title in (('train', 'train'), ('eval', 'validation'))
      for answer in ('chosen', 'rejected')
    ),
    False,
  ),
  (
    'speed.png',
    'Tokens, examples or pairs per second',
    (
      ('train/tokens_per_second', 'tokens'),
      ('train/examples_per_second', 'examples'),
      ('train/pairs_per_second', 'pairs'),
    ),
    False,
  ),
)


def plot_run(workdir: str | pathlib.Path) -> list[pathlib.Path]:
  """Writes workdir/plots/*.png, those that have data, and returns their paths."""
  plt = pyplot()
  _, lines = read_metrics(workdir)
  folder = pathlib.Path(workdir) / 'plots'
  folder.mkdir(exist_ok=True)
  paths = []
  for file, title, series, logarithmic in (*CURVES, *_of_measures(lines)):
    figure, axes = plt.subplots(figsize=(7, 4.2), layout='constrained')
    for metric, label in series:
      points = [(x['step'], x[metric]) for x in lines if x.get(metric) is not None]
      if points:
        # A line through a single point would not show.
        few = not metric.startswith('train/') or len(points) == 1
        marker = 'o' if few else None
        axes.plot(*zip(*points), marker=marker, markersize=4, label=label)
    if not axes.lines:
      plt.close(figure)
      continue
    if logarithmic:
      axes.set_yscale('log')
    axes.set(title=title, xlabel='step')
    axes.grid(alpha=0.3)
    axes.legend()
    paths.append(folder / file)
    figure.savefig(paths[-1], dpi=130)
    plt.close(figure)
  return paths


def plot_measures(
  workdir: pathlib.Path, values: measures.Values, step: int
) -> list[pathlib.Path]:
  """Writes workdir/plots/measure_NAME.png for each measure, and returns the paths.

  Values over the layers; those of one name before the slash share a panel, and of a panel
  in which nothing has layers each value is a bar.
  """
  plt = pyplot()
  folder = workdir / 'plots'
  folder.mkdir(exist_ok=True)
  paths = []
  for measure, of in values.items():
    groups: dict[str, dict] = {}
    for name, x in of.items():
      group, slash, own = name.partition('/')
      # A mean over everything, beside its parts, is no part of a panel.
      if slash or not any(other.startswith(f'{name}/') for other in of):
        groups.setdefault(group if slash else '', {})[own or name] = x
    size = (7, 4.2 * len(groups))
    figure, panels = plt.subplots(
      len(groups), 1, figsize=size, layout='constrained', squeeze=False
    )
    for axes, (group, series) in zip(panels[:, 0], groups.items()):
      _draw(axes, series)
      axes.set_title(group.replace('_', ' '))
    figure.suptitle(f'{measures.title(measure)}, step {step}')
    paths.append(folder / f'measure_{measure}.png')
    figure.savefig(paths[-1], dpi=130)
    plt.close(figure)
  return paths


def plot_fits(workdir: pathlib.Path, found: list[fits.Fit]) -> list[pathlib.Path]:
  """Writes workdir/plots/fit_MEASURE_VALUE.png: points and the curves through them."""
  plt = pyplot()
  folder = workdir / 'plots'
  folder.mkdir(exist_ok=True)
  groups: dict[str, list[fits.Fit]] = {}
  for fit in found:
    groups.setdefault('_'.join(fit.name.split('/')[:2]), []).append(fit)
  paths = []
  for name, of in groups.items():
    figure, axes = plt.subplots(figsize=(7, 4.2), layout='constrained')
    for number, fit in enumerate(of):
      style = {'color': f'C{number}'}
      at = np.linspace(fit.steps.min(), fit.steps.max(), 200)
      label = f'{fit.name}, R2 {fit.r2:.3f}'
      axes.plot(fit.steps, fit.values, 'o', markersize=4, **style)
      axes.plot(at, fit.curve.at(at), label=label, **style)
    axes.set(title=measures.title(of[0].name.partition('/')[0]), xlabel='step')
    axes.grid(alpha=0.3)
    axes.legend(fontsize='small')
    paths.append(folder / f'fit_{name}.png')
    figure.savefig(paths[-1], dpi=130)
    plt.close(figure)
  return paths


def _draw(axes: Any, series: dict[str, Any]) -> None:
  if not any(x.ndim for x in series.values()):
    axes.barh(list(series), [float(x) for x in series.values()])
    axes.invert_yaxis()
    axes.grid(alpha=0.3, axis='x')
    return
  for number, (name, x) in enumerate(series.items()):
    style = {'color': f'C{number}', 'label': name}
    if x.ndim:
      axes.plot(range(len(x)), x, marker='o', markersize=4, **style)
    else:
      axes.axhline(float(x), linestyle='--', **style)
  axes.xaxis.get_major_locator().set_params(integer=True)
  axes.set_xlabel('layer')
  axes.grid(alpha=0.3)
  axes.legend(fontsize='small')


def pyplot() -> Any:
  """matplotlib.pyplot, for files alone."""
  import matplotlib  # it takes its time, and complains where there is no home folder

  matplotlib.use('Agg')  # no display needed
  import matplotlib.pyplot as plt

  return plt


def _of_measures(lines: list[dict]) -> list[tuple]:
  """Curves of the measures of which the lines have values: their means over layers."""
  found = {name: text for line in lines for name, text in measures.formats(line).items()}
  curves = []
  for measure in MEASURES:
    own = [name for name in found if name.startswith(f'{measure}/')]
    series = tuple((name, name.partition('/')[2].replace('_', ' ')) for name in own)
    title = f'{measures.title(measure)}, mean over layers'
    curves.append((f'{measure}.png', title, series, False))
  return curves
