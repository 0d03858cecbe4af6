"""Curves of a run as PNG, from its metrics.jsonl."""

import pathlib

from elas_jax.run.metrics import read_metrics

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
    'speed.png',
    'Tokens or examples per second',
    (
      ('train/tokens_per_second', 'tokens'),
      ('train/examples_per_second', 'examples'),
    ),
    False,
  ),
  (
    'activations.png',
    'Squared-ReLU activations, mean over layers',
    (
      ('activations/zero_fraction', 'zeros before pruning'),
      ('activations/dropped_mass', 'mass that 2:4 drops'),
      ('activations/crowded_groups', 'groups with more than two non-zeros'),
      ('activations/flip_rate', 'flips in one step'),
    ),
    False,
  ),
)


def plot_run(workdir: str | pathlib.Path) -> list[pathlib.Path]:
  """Writes workdir/plots/*.png, those that have data, and returns their paths."""
  import matplotlib  # it takes its time, and complains where there is no home folder

  matplotlib.use('Agg')  # no display needed
  import matplotlib.pyplot as plt

  _, lines = read_metrics(workdir)
  folder = pathlib.Path(workdir) / 'plots'
  folder.mkdir(exist_ok=True)
  paths = []
  for file, title, series, logarithmic in CURVES:
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
