"""The Kolmogorov-Arnold transformer (KAT) beside the transformer with an MLP.

  python -m experiments.run kat_vs_mlp --scale=proxy --workers=2
  python -m experiments.run kat_vs_mlp --scale=paper \
      --config.data.source.data_dir=TFDS_FOLDER

Rows: a vit whose feed-forward is dense layers and GELU, or SiLU, which is where the
rationals of KAT start, and SiLU with a Kaiming start (vit_silu_he), since the layers of kat
start with more variance than the usual ones; the same with group-rational layers (kat); and
kat with one function for all channels instead of one denominator for each of eight groups.
In a decoder: decoder_networks.
Reproduces: at the paper's scale the small MNIST example of KAT's README (784-256-10), and
cifar10 without a published value. KAT's own table is of ImageNet, which is not here.
Hardware: proxy (digits, mnist1d in patches of 4) about 40 minutes on a CPU core; paper a
GPU, not yet run.
"""

from elas_jax.tables.entries import Entry, gap_lines
from elas_jax.tables.plan import At
from elas_jax.tables.table import Row, Table
from experiments import networks, published

SILU = 'model.architecture.feed_forward.activation'
PAIRS = (
  ('kat', 'vit'),
  ('kat', 'vit_silu'),
  ('kat', 'vit_silu_he'),
  ('kat', 'kat_1_group'),
)
MNIST1D_STEPS = 1000
# 10 epochs of 128 rows.
SMALL = {
  'model.width': 256,
  'model.use_bias': True,
  'model.norm': 'none',
  'data.batch_size': 128,
  'train.steps': 10 * 60_000 // 128,
  'optimizer': 'sgd',
  'optimizer.learning_rate': 0.01,
  'schedule': 'constant',
  'schedule.warmup_steps': 0,
  'optimizer.weight_decay': 0.0,
}


def rows(at: At) -> list[Row]:
  if at.size == 'mnist':
    values = published.SMALL_KAT
    return [
      Row('gelu', 'mlp', SMALL | {'model.activation': 'gelu'}, values['mlp']),
      Row('gr_kan', 'gr_kan', SMALL, values['gr_kan']),
    ]
  result = [
    Row('vit', 'vit'),
    Row('vit_silu', 'vit', {SILU: 'silu'}),
    Row('vit_silu_he', 'vit', {SILU: 'silu', 'model.init': 'he'}),
    Row('kat', 'kat'),
    Row('kat_1_group', 'kat', {'model.linear.groups': 1}),
  ]
  return networks.longer(at, result, MNIST1D_STEPS)


def conclude(entries: list[Entry]) -> list[str]:
  pairs = (*PAIRS, ('gr_kan', 'gelu'))
  return gap_lines(entries, pairs, networks.ACCURACY[:2])


LABEL = "mnist: the scale of KAT's small example; cifar10: nobody's; {shape}"
TABLE = Table(
  title='KAT and the transformer with an MLP',
  rows=rows,
  family=networks.NETWORKS,
  scales=networks.scales(
    networks.IMAGES,
    proxy=('digits', 'mnist1d'),
    paper=('mnist', 'cifar10'),
    paper_label=LABEL,
    seeds=3,
  ),
  cells=networks.flops_cell,
  conclude=conclude,
  notes=(
    'On ImageNet (300 epochs) KAT-T has 74.6 % where DeiT-T has 72.7, KAT-S 81.2 where '
    "DeiT-S has 78.8, by a third party's summary; nothing here has that scale.",
    'Network mnist: 784-256-10, SGD 0.01 with momentum 0.9, batch 128, 10 epochs. Its '
    'schedule and normalisation are not in the README; here the rate is constant and '
    'pixels are in [-1, 1], and gr_kan has a rational before the first layer too.',
  ),
)
