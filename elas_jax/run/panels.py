"""How runs that are followed look in a terminal: a panel each, side by side."""

import math
import textwrap
from collections.abc import Sequence

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from elas_jax.run.follow import Followed, Newest

# Cells: of a panel at least, and, since longer lines are hard to read, at most.
NARROWEST, WIDEST = 40, 76
EDGES = 4  # of them its border takes
BORDERS = 2  # lines that it takes
VALUE_WIDTH = 10  # that labels leave to values
NOTE_LINES = 4
STYLES = {
  'not begun': 'dim',
  'running': 'green',
  'stalled': 'yellow',
  'stopped': 'red',
  'finished': 'cyan',
}
BLOCKS, ASCII_BLOCKS = '▁▂▃▄▅▆▇█', '.,-+=*%#'
BAR, ASCII_BAR = '█░', '#.'
# How values are said, by the end of their names; others are as OTHER has it.
FORMATS = {
  'loss': ('loss', '{:.4f}'),
  'perplexity': ('perplexity', '{:,.3f}'),
  'bits_per_byte': ('bits/byte', '{:.4f}'),
  'accuracy': ('accuracy', '{:.2%}'),
  'learning_rate': ('learning rate', '{:.2e}'),
  'grad_norm': ('gradient norm', '{:.3g}'),
  'tokens_per_second': ('tokens/s', '{:,.0f}'),
  'examples_per_second': ('examples/s', '{:,.0f}'),
  'pairs_per_second': ('pairs/s', '{:,.1f}'),
  'model_flop_utilisation': ('MFU', '{:.1%}'),
  'data_wait_share': ('data wait', '{:.1%}'),
}
OTHER = '{:.4g}'
# Of a training step its loss says it already; of an evaluation, how much was evaluated.
HIDDEN = {
  'train/perplexity',
  *(f'eval/{x}' for x in ('tokens', 'bytes', 'examples', 'pairs')),
}

Row = tuple[str, str]  # label and value


def picture(
  runs: Sequence[Followed],
  console: Console,
  now: float,
  stalled_after: float,
  height: int | None = None,
) -> Table:
  """Panels side by side, as many as there is room for, below each other the rest.

  With `height` the panels are cut to fit it: what matters most stands first in them. Where
  even that is too high, each run has a line.
  """
  columns = max(min(len(runs), console.width // NARROWEST), 1)
  width = min(console.width // columns, WIDEST)
  plain = console.options.ascii_only
  grid = Table.grid()
  for _ in range(columns):
    grid.add_column(width=width)
  rows = -(-len(runs) // columns)
  most = height // rows - BORDERS if height else math.inf
  if most < 2:
    for start in range(0, len(runs), columns):
      beside = runs[start : start + columns]
      grid.add_row(*(short_line(run, width, now, stalled_after) for run in beside))
    return grid
  for start in range(0, len(runs), columns):
    beside = runs[start : start + columns]
    lines = [panel_lines(run, width - EDGES, now, stalled_after, plain) for run in beside]
    tallest = min(max(map(len, lines)), most)
    grid.add_row(*(_panel(run, of, width, tallest) for run, of in zip(beside, lines)))
  return grid


def _panel(run: Followed, lines: list[Text], width: int, height: int) -> Panel:
  if len(lines) > height:
    cut = len(lines) - height + 1
    lines = [*lines[: height - 1], Text(f'... {cut} lines more')]
  title = Text(_name(run, width - EDGES - 2))
  return Panel(Group(*lines), title=title, height=height + BORDERS, width=width)


def _name(run: Followed, room: int) -> str:
  """Its end, if there is no room: there the folders of a batch differ."""
  name = _printable(str(run.workdir))
  return name if len(name) <= room else '...' + name[len(name) - max(room - 3, 1) :]


def short_line(run: Followed, width: int, now: float, stalled_after: float) -> Text:
  """Name, state, share of the steps and training loss."""
  steps, loss = run.field('train.steps'), run.values.get('train/loss')
  state = run.state(now, stalled_after)
  share = f'{min(run.step / steps, 1.0):.0%}' if steps else ''
  said = f'{loss.value:.4f}' if loss and math.isfinite(loss.value) else ''
  end = f'{"damaged" if run.damage else state:<9} {share:>4} {said:>8} '
  room = max(width - len(end) - 1, 4)
  return _one_line(Text(f'{_name(run, room):<{room}} {end}', STYLES[state]))


def panel_lines(
  run: Followed, width: int, now: float, stalled_after: float, plain: bool = False
) -> list[Text]:
  """What a run's panel says, what matters most first; each line of `width` at most."""
  state = run.state(now, stalled_after)
  parts: list[Row | Text] = [Text(_state(run, state, now), STYLES[state])]
  parts += [Text(text, 'red') for text in _wrapped(run.damage, width)]
  if run.begun:
    parts += _progress(run, STYLES[state], width, plain)
    parts += _rows(_found(run, 'train'))
    parts += _by_step(run, 'eval', 'validation')
    if run.note:
      step, note = run.note
      parts += map(Text, _wrapped(f'note of step {step:,}: {note}', width))
    for group in dict.fromkeys(name.partition('/')[0] for name in run.values):
      if group not in ('train', 'eval'):
        parts += _by_step(run, group, group)
  labels = [part[0] for part in parts if isinstance(part, tuple)]
  room = min(max(map(len, labels), default=0), max(width - VALUE_WIDTH - 1, 1))
  texts = [part if isinstance(part, Text) else _aligned(part, room) for part in parts]
  return [_one_line(text) for text in texts]


def _one_line(text: Text) -> Text:
  text.no_wrap, text.overflow = True, 'crop'
  return text


def _aligned(row: Row, room: int) -> Text:
  label, value = row
  label = label if len(label) <= room else label[: room - 1] + '.'
  return Text(f'{label:<{room}} {value}')


def _state(run: Followed, state: str, now: float) -> str:
  if state == 'not begun':
    return 'not begun: no config.json yet'
  if state == 'stopped' and run.diverged:
    return 'stopped: a loss or a gradient is not finite'
  if state in ('stalled', 'stopped'):
    return f'{state}: no new line for {duration(run.quiet(now))}'
  left = run.seconds_left(now)
  if state == 'running' and left is not None:
    return f'running, about {duration(left)} left'
  return state


def _progress(run: Followed, style: str, width: int, plain: bool) -> list[Row | Text]:
  steps = run.field('train.steps')
  if not steps:
    return [('step', f'{run.step:,}')]
  share = min(run.step / steps, 1.0)
  parts = [
    Text(f'step {run.step:,} of {steps:,} ({share:.0%})'),
    Text(bar(share, width, ASCII_BAR if plain else BAR), style),
  ]
  if len(run.curve) > 1:
    parts.append(Text(sparkline(run.curve, width, ASCII_BLOCKS if plain else BLOCKS)))
  return parts


def _by_step(run: Followed, group: str, title: str) -> list[Row | Text]:
  """Values under a heading for each step, the newest first: some have one of their own."""
  found = _found(run, group)
  parts: list[Row | Text] = []
  for step in sorted({newest.step for newest in found.values()}, reverse=True):
    parts.append(Text(f'{_printable(title)} of step {step:,}', 'bold'))
    parts += _rows({name: x for name, x in found.items() if x.step == step})
  return parts


def _found(run: Followed, group: str) -> dict[str, Newest]:
  """The values of a group by their own names; of layers only their mean."""
  found = {
    name.removeprefix(f'{group}/'): newest
    for name, newest in run.values.items()
    if name.startswith(f'{group}/') and name not in HIDDEN
  }
  if group == 'train':  # an objective is no layer
    return found
  return {name: newest for name, newest in found.items() if '/' not in name}


def _rows(found: dict[str, Newest]) -> list[Row]:
  """Those of FORMATS first and in its order."""
  names = [name for name in FORMATS if name in found]
  return [_row(x, found[x].value) for x in [*names, *(x for x in found if x not in names)]]


def _row(name: str, value: float) -> Row:
  label, form = FORMATS.get(name, (_printable(name), OTHER))
  return label, form.format(value) if math.isfinite(value) else 'not finite'


def _wrapped(text: str, width: int) -> list[str]:
  return textwrap.wrap(_printable(text), width, max_lines=NOTE_LINES, placeholder=' ...')


def _printable(text: str) -> str:
  """Names and notes come from files: none of them may steer the terminal."""
  return ''.join(x if x.isprintable() else '?' for x in text)


def bar(share: float, width: int, signs: str = BAR) -> str:
  full, empty = signs
  done = math.floor(share * width)
  return full * done + empty * (width - done)


def sparkline(curve: Sequence[tuple[int, float]], width: int, blocks: str = BLOCKS) -> str:
  """Means over equal parts of the curve, at most `width`, between the lowest and a cap.

  The first losses are so far above the others that these would look all the same: the
  cap leaves a tenth of the parts above it, which are shown as high as the cap.
  """
  count = min(width, len(curve))
  ends = [i * len(curve) // count for i in range(count + 1)]
  parts = [
    sum(loss for _, loss in curve[start:end]) / (end - start)
    for start, end in zip(ends, ends[1:])
  ]
  low, cap = min(parts), sorted(parts)[math.ceil(0.9 * (count - 1))]
  scale = (len(blocks) - 1) / (cap - low) if cap > low else 0.0
  return ''.join(blocks[round((min(x, cap) - low) * scale)] for x in parts)


def duration(seconds: float) -> str:
  """In words: '45 s', '12 min', '3 h 05 min', '2 d 4 h'."""
  if seconds < 90:
    return f'{seconds:.0f} s'
  hours, minutes = divmod(round(seconds / 60), 60)
  if not hours:
    return f'{minutes} min'
  if hours < 48:
    return f'{hours} h {minutes:02d} min'
  return f'{hours // 24:,} d {hours % 24} h'
