"""Generation: continue prompts with a trained model.

python -m elas_jax.generate --workdir=DIR --prompt='def main' --prompt='import '

With --chat each prompt is a user's message, and what is printed the answer to it, by the
chat template of the run's tokenizer.
"""

import argparse
from typing import get_args

import jax

from elas_jax.common.errors import UserError
from elas_jax.common.limits import LARGEST
from elas_jax.config.cli import Parser, integer, run_command
from elas_jax.data import chat
from elas_jax.models.sampling import SkipZeros, generate, readable
from elas_jax.run.workdir import check_text, open_run


def main(arguments: list[str] | None = None) -> None:
  parser = Parser(
    prog='python -m elas_jax.generate',
    description='Continue prompts with a trained model.',
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_place('--workdir', required=True, help='folder of the run')
  parser.add_argument('--step', type=integer(), help='checkpoint; None: the newest')
  parser.add_argument('--prompt', action='append', help='may be given several times')
  parser.add_argument('--tokens', type=integer(1), default=200, help='at most, a prompt')
  parser.add_argument('--temperature', type=float, default=0.8)
  parser.add_argument('--top_p', type=float, default=0.95)
  parser.add_argument(
    '--chat', action='store_true', help='prompts are messages that are answered'
  )
  parser.add_argument('--seed', type=integer(0, LARGEST['seed']), default=0)
  parser.add_argument(
    '--skip_zeros',
    choices=get_args(SkipZeros),
    default='auto',
    help='read only the rows of the last maps of feed-forwards whose activation is not '
    'zero; auto: for one prompt, on a CPU, where kernels are large',
  )
  options = parser.parse_args(arguments)
  run = open_run(options.workdir, options.step, {'eval.batch_size': jax.device_count()})
  check_text(run, options.workdir)
  prompts = [readable('--prompt', text) for text in options.prompt or ['']]
  if options.chat and not all(text.strip() for text in prompts):
    raise UserError("--prompt='': must be a message to answer, with --chat")
  texts = generate(
    run.config.model,
    run.variables,
    run.tokenizer,
    [chat.asked(text, run.tokenizer) for text in prompts] if options.chat else prompts,
    length=options.tokens,
    temperature=options.temperature,
    top_p=options.top_p,
    seed=options.seed,
    behind_end=run.config.data.protocol == 'packed',
    stops=chat.stops(run.tokenizer) if options.chat else (),
    skip_zeros=options.skip_zeros,
  )
  for prompt, text in zip(prompts, texts):
    print(f'--- {prompt!r}')
    print(text if options.chat else prompt + text)


if __name__ == '__main__':
  run_command(main)
