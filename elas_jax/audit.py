"""What the published convention of evaluation did to the perplexity of another code's log.

  python -m elas_jax.audit LOG
  python -m elas_jax.audit LOG --batches=N
  python -m elas_jax.audit LOG --batch_size=B --length=L --world_size=W

LOG is what a training printed, or JSON or JSON lines of its evaluations; --help shows the
forms. As read in the code of GaLore (torchrun_main.py, commit 2cc66f8), LORO (run_c4.py,
4da57b6), CoLA (main.py, 91ff0d1) and SLTrain (torchrun_main.py, 2335d62), `evaluate_model`
computes the same in all four:

- The counter of batches starts at 1 and grows by 1 a batch, so each of W processes has
  (l_1 + ... + l_n) / (n + 1), l_i the mean over the tokens of its batch i. What is printed
  is the mean over the processes. None of the four divides by n; none weights by tokens.
- A process stops before the first batch at which W times its own tokens without padding are
  above 10,000,000. With B rows a batch of L tokens each: n = 10,000,000 // (B L W) + 1. A
  row is one document, cut at max_length and padded: with L = max_length this n is the
  least, and the correction (n + 1) / n at most so large. B is the batch size of training.
- GaLore and LORO print `Eval loss at step S: LOSS` and `Final eval loss: LOSS`; CoLA and
  SLTrain `Eval loss and perplexity at step S: LOSS, e^LOSS`, at the end too. All print
  their arguments first, in which W = total_batch_size / (gradient_accumulation batch_size).
  To Weights & Biases goes `final_eval_loss`, of CoLA and SLTrain also
  `final_eval_perplexity`.

n may differ by a few between processes, with their tokens; here it is one number.
"""

import argparse
import json
import math
import os
import pathlib
from typing import Any, NamedTuple

from elas_jax.common.errors import UserError
from elas_jax.common.places import write_text
from elas_jax.config.cli import Parser, integer, run_command
from elas_jax.run.other_logs import ACCEPTED, Evaluation, Found, read

CONVENTIONS = {
  'published': 'sum of batch means / (n + 1)',
  'mean': 'sum of batch means / n',
  'token': 'sum over tokens / tokens',
}
EVAL_TOKENS = 10_000_000  # of all four codes
SIZES = ('batches', 'batch_size', 'length', 'world_size', 'eval_tokens')
NOT_BY_TOKENS = (
  'It is still a mean of batch means: a batch of few tokens counts as much as a full one, '
  'which cannot be undone without the loss and the number of tokens of each batch.'
)


ROWS_ARE_SHORTER = (
  'This n is the least: it takes every row for full. Rows are padded, so n is larger and '
  'the correction smaller; --length=L, the mean of tokens a row without padding, mends it.'
)


def main(arguments: list[str] | None = None) -> None:
  options = _parser().parse_args(arguments)
  if options.convention not in (None, *CONVENTIONS):
    accepted = ', '.join(CONVENTIONS)
    raise UserError(f'--convention={options.convention}: must be one of {accepted}')
  _check_output(options.output, options.log)
  found = read(options.log)
  result = of_batches if found.batches.n else of_evaluations
  values = {'file': str(options.log), **result(found, options)}
  if options.output:
    try:
      write_text(options.output, json.dumps(values, indent=2, allow_nan=False) + '\n')
    except OSError as error:
      raise UserError(f'--output={options.output}: {error.strerror}') from error
    print(f'written to {options.output}')


def _parser() -> Parser:
  parser = Parser(
    prog='python -m elas_jax.audit',
    description="What division by n + 1 did to the perplexity of another code's log.",
    epilog=f'{ACCEPTED[0].upper()}{ACCEPTED[1:]}.'.replace('%', '%%'),
  )
  parser.add_place('log', metavar='LOG', help='a log, JSON or JSON lines')
  conventions = '; '.join(f'{name}: {text}' for name, text in CONVENTIONS.items())
  help = f'what the log printed, {conventions}; default: as its form says'
  parser.add_argument('--convention', help=help)
  size = lambda flag, help: parser.add_argument(flag, type=integer(1), help=help)
  size('--batches', 'n, the batches of an evaluation (of one process)')
  size('--batch_size', 'or: rows a batch (of one process); default: as the log says')
  size('--length', "tokens a row, without padding; default: the log's max_length")
  size('--world_size', 'processes; default: as the log says')
  size('--eval_tokens', f'where an evaluation ends; default: {EVAL_TOKENS}')
  parser.add_place('--output', help='JSON file for the numbers')
  return parser


def _check_output(output: pathlib.Path | None, log: pathlib.Path) -> None:
  if output and output.is_dir() or output and not output.parent.is_dir():
    raise UserError(f'--output={output}: must be a file in a folder that is there')
  if output and output.exists() and log.exists() and os.path.samefile(output, log):
    raise UserError(f'--output={output}: is the log that is read; give another file')


class Count(NamedTuple):
  """n, and how well it is known: given, about, or at least so many."""

  n: int
  known: str
  how: str


def count(found: Evaluation, options: argparse.Namespace, where: str) -> Count:
  """The n of an evaluation, from flags and what the log says.

  Raises:
    UserError: some of it is missing.
  """
  given = {name: getattr(options, name) for name in SIZES if getattr(options, name)}
  derived = given.keys() - {'batches'}
  if 'batches' in given and derived:
    raise UserError(
      f'--batches={options.batches}: is n already; leave out --{min(derived)}'
    )
  if n := given.get('batches') or (not derived and found.sizes.get('batches')):
    return Count(n, 'given', f'{n}, as given')
  sizes = found.sizes
  has = {name: sizes[name] for name in SIZES if name in sizes}
  if 'max_length' in sizes:
    has['length'] = sizes['max_length']
  whole = sizes.get('total_batch_size', 0)
  part = sizes.get('gradient_accumulation', 0) * sizes.get('batch_size', 0)
  if part and whole and whole % part == 0:
    has['world_size'] = whole // part
  has = {'eval_tokens': EVAL_TOKENS} | has | given
  if missing := [f'--{name}' for name in SIZES[1:] if name not in has]:
    raise UserError(
      f'{where}: n, the number of batches, is missing; give --batches=N, or what is not '
      f'in the file of B, L and W: {", ".join(missing)}'
    )
  rows, length, world = (has[name] for name in ('batch_size', 'length', 'world_size'))
  n = has['eval_tokens'] // (rows * length * world) + 1
  how = f'{n} = {has["eval_tokens"]} // ({rows} rows * {length} tokens * {world}) + 1'
  return Count(n, 'about' if options.length else 'at least', how)


def of_evaluations(found: Found, options: argparse.Namespace) -> dict[str, Any]:
  """Prints the table and the verdict of printed evaluations; returns the numbers."""
  both = found.evaluations[-1].by_tokens is not None
  if both and options.convention:
    raise UserError(f'--convention={options.convention}: {options.log} has both itself')
  convention = options.convention or found.convention
  if convention is None:
    accepted = ', '.join(f'{name} ({text})' for name, text in CONVENTIONS.items())
    raise UserError(
      f'{options.log}: {found.form} does not say how it was averaged; give --convention, '
      f'one of {accepted}'
    )
  if both or convention != 'published':
    _refuse_sizes(options, 'nothing is divided by n + 1 that n could mend')
  rows = [_row(one, convention, options) for one in found.evaluations]
  said = 'as given' if options.convention else 'as its form says'
  print(f'{options.log}: {found.form}; {convention}: {CONVENTIONS[convention]}, {said}')
  print(table(rows))
  for step, line in found.damaged.items():
    print(f'left out: step {step} of line {line} has no result that can be read')
  last = rows[-1]
  printed = f'step {last["step"]}: the printed perplexity {last["printed_perplexity"]:.6g}'
  if both:
    verdict = (
      f'{printed} is by the published convention; weighted by tokens it is '
      f'{last["perplexity"]:.6g}, {last["percent"]:+.3g} %.'
    )
  elif convention == 'published':
    most = {'given': '', 'about': 'about ', 'at least': 'at most '}[last['n_known']]
    verdict = (
      f'{printed} is too low: divided by n = {last["n"]} instead of n + 1 it is {most}'
      f'{last["perplexity"]:.6g}, {most}{last["percent"]:.3g} % more. {NOT_BY_TOKENS}'
    )
    print(f'n = {last["how"]}')
    if last['n_known'] == 'at least':
      print(ROWS_ARE_SHORTER)
  elif convention == 'mean':
    verdict = f'{printed} stands as it is. {NOT_BY_TOKENS}'
  else:
    verdict = f'{printed} stands as it is.'
  print(verdict)
  return {
    'form': found.form,
    'convention': convention,
    'evaluations': rows,
    'left_out': {str(step): line for step, line in found.damaged.items()},
    'verdict': verdict,
  }


def _row(found: Evaluation, convention: str, options: argparse.Namespace) -> dict[str, Any]:
  loss, of_n = found.loss, {}
  if found.by_tokens is not None:
    loss = found.by_tokens
  elif convention == 'published':
    n, known, how = count(found, options, f'{options.log}: line {found.line}')
    loss, of_n = found.loss * (n + 1) / n, {'n': n, 'n_known': known, 'how': how}
  return {
    'line': found.line,
    'step': found.step,
    'printed_loss': found.loss,
    'printed_perplexity': math.exp(found.loss),
    **of_n,
    'loss': loss,
    'perplexity': math.exp(loss),
    'percent': 100 * math.expm1(loss - found.loss),
  }


def table(rows: list[dict[str, Any]]) -> str:
  """A line an evaluation: what was printed, n, what is right, and by how much."""
  names = ('step', 'printed loss', 'perplexity', 'n', 'loss', 'perplexity', 'difference')
  lines = [f'{names[0]:>8s}' + ''.join(f'{name:>14s}' for name in names[1:])]
  for row in rows:
    numbers = [
      f'{row["printed_loss"]:.6f}',
      f'{row["printed_perplexity"]:.6g}',
      str(row.get('n', '-')),
      f'{row["loss"]:.6f}',
      f'{row["perplexity"]:.6g}',
      f'{row["percent"]:+.3g} %',
    ]
    lines.append(f'{row["step"]!s:>8s}' + ''.join(f'{x:>14s}' for x in numbers))
  return '\n'.join(lines)


def of_batches(found: Found, options: argparse.Namespace) -> dict[str, Any]:
  """Prints what each convention makes of the losses of all batches; returns the numbers."""
  why = f'{options.log} has the loss of every batch'
  if options.convention:
    raise UserError(f'--convention={options.convention}: {why}; all of them are shown')
  _refuse_sizes(options, why)
  n, losses = found.batches.n, found.batches.losses()
  best = 'token' if 'token' in losses else 'mean'
  print(f'{options.log}: the losses of {n} batches')
  print(f'{"":10s}{"loss":>14s}{"perplexity":>14s}')
  for name, loss in losses.items():
    print(f'{name:10s}{loss:14.6f}{math.exp(loss):14.6g}   {CONVENTIONS[name]}')
  percent = 100 * math.expm1(losses[best] - losses['published'])
  verdict = (
    f'The published convention prints {math.exp(losses["published"]):.6g}; the perplexity '
    f'is {math.exp(losses[best]):.6g}, {percent:+.3g} %.'
  )
  if best == 'mean':
    verdict += f' {NOT_BY_TOKENS}'
  print(verdict)
  values = {
    name: {'loss': loss, 'perplexity': math.exp(loss)} for name, loss in losses.items()
  }
  return {'batches': n, **values, 'percent': percent, 'verdict': verdict}


def _refuse_sizes(options: argparse.Namespace, why: str) -> None:
  for name in SIZES:
    if (value := getattr(options, name)) is not None:
      raise UserError(f'--{name}={value}: {why}; leave it out')


if __name__ == '__main__':
  run_command(main)
