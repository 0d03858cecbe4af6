"""The chat template of a published tokenizer: where its folder keeps it.

Hugging Face writes it beside tokenizer.json, as `chat_template` of tokenizer_config.json
or, in newer versions, as chat_template.jinja. Here it becomes a key of the tokenizer's own
JSON, so that it goes into checkpoints with it.
"""

import json
import pathlib

from elas_jax.common.errors import UserError

KEY = 'chat_template'
SETTINGS, ALONE = 'tokenizer_config.json', 'chat_template.jinja'


def with_template(text: str, path: pathlib.Path) -> str:
  """The JSON `text` of the tokenizer at `path`, with the template of its folder, if any.

  Raises:
    UserError: the file beside it is not readable.
  """
  read = json.loads(text)
  if not isinstance(read, dict) or KEY in read:
    return text
  template = _template_beside(path)
  return json.dumps({**read, KEY: template}) if template else text


def without_template(text: str) -> tuple[str, str]:
  """(the JSON of the tokenizer alone, which its library reads; the template or '')."""
  read = json.loads(text)
  if not isinstance(read, dict) or KEY not in read:
    return text, ''
  template = _chosen(read.pop(KEY))
  return json.dumps(read), template


def _template_beside(path: pathlib.Path) -> str:
  settings, alone = path.with_name(SETTINGS), path.with_name(ALONE)
  try:
    if alone.is_file():
      return alone.read_text(encoding='utf-8')
    if not settings.is_file():
      return ''
    found = json.loads(settings.read_text(encoding='utf-8'))
  except (OSError, ValueError, RecursionError) as error:
    reason = getattr(error, 'strerror', None) or str(error).splitlines()[0]
    raise UserError(
      f'data.tokenizer.path={str(path)!r}: {SETTINGS} or {ALONE} beside it cannot be '
      f'read ({reason}); accepted are JSON and Jinja, or neither file'
    ) from error
  return _chosen(found.get(KEY)) if isinstance(found, dict) else ''


def _chosen(template: object) -> str:
  """The template, or of several, [{'name': ..., 'template': ...}], the default one."""
  if isinstance(template, list):
    named = {x.get('name'): x.get('template') for x in template if isinstance(x, dict)}
    template = named.get('default')
  return template if isinstance(template, str) else ''
