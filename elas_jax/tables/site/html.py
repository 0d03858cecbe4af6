"""HTML from text: whatever is not HTML already is escaped; tables, text, Markdown."""

import functools
import html
import pathlib
import re
import string
from collections.abc import Iterable, Sequence
from typing import Any

from markdown_it import MarkdownIt

from elas_jax.tables.table import MARKS

HERE = pathlib.Path(__file__).parent
VOID = ('br', 'img', 'input')
NUMBER = re.compile(r'[-+]?\d')
# In a text: `code`, and the number of a paper.
PARTS = re.compile(r'(`[^`]+`|arXiv \d{4}\.\d{4,5})')


class Html(str):
  """Text that is HTML already."""


def join(*parts: Any) -> Html:
  """All in order: `Html` as it is, text escaped, lists one by one, None left out."""
  return Html(''.join(map(_part, parts)))


def _part(x: Any) -> str:
  if isinstance(x, Html):
    return x
  if isinstance(x, str):
    return html.escape(x)
  if isinstance(x, Iterable):
    return join(*x)
  return '' if x is None else html.escape(str(x))


def tag(name: str, *inside: Any, **attributes: Any) -> Html:
  """An element: class_ is class, aria_label aria-label, True bare, None left out."""
  words = [name]
  for key, value in attributes.items():
    key = key.rstrip('_').replace('_', '-')
    if value is True:
      words.append(key)
    elif value is not None and value is not False:
      words.append(f'{key}="{html.escape(str(value))}"')
  end = '' if name in VOID else f'</{name}>'
  return Html(f'<{" ".join(words)}>{join(*inside)}{end}')


def link(address: str, *inside: Any) -> Html:
  return tag('a', *inside, href=address)


def paper(number: str, *inside: Any) -> Html:
  """A link to arXiv."""
  return link(f'https://arxiv.org/abs/{number}', *inside or (number,))


def badge(word: str, kind: str = '') -> Html:
  return tag('span', word, class_=f'badge {kind or word}')


def inline(text: str) -> Html:
  """A text with its `code` and its papers; all else in it is no markup."""
  found = []
  for part in PARTS.split(text):
    if part.startswith('`') and part.endswith('`') and len(part) > 1:
      found.append(tag('code', part[1:-1]))
    elif PARTS.fullmatch(part):
      found.append(paper(part.removeprefix('arXiv '), part))
    else:
      found.append(part)
  return join(found)


def marked(text: str) -> Html:
  """Published values, each on one line, with what their marks mean."""
  found = []
  for value in text.split(', '):
    parts = re.split(r'(\[[A-Z]\])', value)
    titles = [MARKS.get(part[1:-1]) for part in parts]
    own = [tag('abbr', x, title=title) if title else x for x, title in zip(parts, titles)]
    found.append(tag('span', own, class_='whole'))
  return Html(', '.join(found))


def listed(texts: Sequence[str]) -> Html:
  return tag('ul', [tag('li', inline(x)) for x in texts]) if texts else Html()


def label(text: str) -> Html:
  """The name of a row, which may break after each _."""
  return Html('_<wbr>'.join(map(html.escape, text.split('_'))))


def cell(text: str) -> Html:
  """Of numbers on the right, one above the other."""
  return tag('td', text, class_='n' if NUMBER.match(text) else None)


def table(
  caption: Any, header: Sequence[Any], rows: Iterable[Sequence[Any]], **attributes: Any
) -> Html:
  """In a box that scrolls by itself; the first cell of a row names it.

  A cell that is `Html` is a whole `td`; '-' is an absent value.
  """
  of = lambda x: x if isinstance(x, Html) or x == '-' else cell(x)
  cells = [[tag('th', first, scope='row'), *map(of, rest)] for first, *rest in rows]
  right = [any(x.startswith('<td class="n"') for x in column) for column in zip(*cells)]
  right += [False] * (len(header) - len(right))  # of no rows
  side = [{'class_': 'n' if n else None} for n in right]
  absent = [tag('td', '-', class_='absent n' if n else 'absent') for n in right]
  heads = [tag('th', x, scope='col', **of) for x, of in zip(header, side)]
  body = [
    tag('tr', [absent[n] if x == '-' else x for n, x in enumerate(row)], '\n')
    for row in cells
  ]
  name = tag('caption', caption) if caption else None
  head = tag('thead', tag('tr', heads))
  return scrolled(tag('table', name, head, tag('tbody', body), **attributes), 'table')


def scrolled(inside: Html, label: str) -> Html:
  """By keyboard too."""
  return tag('div', inside, class_='scroll', tabindex=0, role='region', aria_label=label)


def folded(summary: Any, *inside: Any) -> Html:
  return tag('details', tag('summary', summary), inside)


def command(text: str) -> Html:
  """To be copied."""
  return tag('pre', tag('code', text), class_='command')


def markdown(text: str) -> tuple[str, Html]:
  """(first heading or '', all else), other headings one level lower: a page has one h1."""
  parser = _parser()
  tokens, title = parser.parse(text), ''
  if tokens and tokens[0].type == 'heading_open' and tokens[0].tag == 'h1':
    title, tokens = tokens[1].content, tokens[3:]
  for token in tokens:
    if token.type in ('heading_open', 'heading_close'):
      token.tag = f'h{min(int(token.tag[1]) + (token.tag == "h1"), 6)}'
  return title, Html(parser.renderer.render(tokens, parser.options, {}))


@functools.cache
def _parser() -> MarkdownIt:
  """Without HTML in the Markdown, which is shown as text."""
  parser = MarkdownIt('commonmark', {'html': False}).enable('table')
  opened, closed = scrolled(Html('|'), 'table').split('|')
  put = parser.add_render_rule
  put('table_open', lambda *_: opened + '<table>')
  put('table_close', lambda *_: '</table>' + closed)
  return parser


def page(title: str, *body: Any) -> str:
  """A whole page: the title is its h1."""
  template = string.Template((HERE / 'page.html').read_text())
  return template.substitute(title=html.escape(title), body=join(*body))
