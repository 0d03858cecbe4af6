"""The site in a headless browser: sorting, search, theme, widths, contrast, paper."""

import time

import pytest

from experiments import report
from tests.tables.browser import SECONDS, browser, chromium
from tests.tables.made_site import LABEL, make

pytestmark = pytest.mark.skipif(
  chromium() is None, reason='no Chromium here: apt-get install chromium'
)
PAGES = ('index', 'made', 'benchmark_gpu_a_chip_times')
OPEN_ALL = 'document.querySelectorAll("details").forEach((x) => (x.open = true))'
# The parts of a page that stick out of it, without what scrolls in a box of its own.
STICKING_OUT = """
[...document.querySelectorAll('body *')].filter((x) => !x.closest('.scroll, .skip, pre'))
  .filter((x) => x.getBoundingClientRect().right > innerWidth + 0.5)
  .map((x) => x.outerHTML.slice(0, 80))
"""
# Cells whose text reaches into the next one.
OVER = """
[...document.querySelectorAll('td, th')].filter((x) => x.checkVisibility()).filter((x) => {
  const range = document.createRange();
  range.selectNodeContents(x);
  const right = x.getBoundingClientRect().right + 0.5;
  return [...range.getClientRects()].some((y) => y.right > right);
}).map((x) => x.textContent.slice(0, 80))
"""
CUT = """
[...document.querySelectorAll('.scroll')]
  .filter((x) => x.checkVisibility() && x.scrollWidth > x.clientWidth + 1)
  .map((x) => [x.scrollWidth, x.clientWidth, x.textContent.slice(0, 60)])
"""
BROKEN = """
[...document.querySelectorAll('td.n')].flatMap((x) => {
  const text = x.firstChild, range = document.createRange();
  return [...text.data.matchAll(/[\\d.,]+/g)].filter((found) => {
    range.setStart(text, found.index);
    range.setEnd(text, found.index + found[0].length);
    return range.getClientRects().length !== 1;
  }).map((found) => found[0]);
})
"""
PAPER = 1030  # pixels of A4 on its side, less its margins
# WCAG 2.1: relative luminance, and the contrast (L1 + 0.05) / (L2 + 0.05) of each text
# with what is behind it; 4.5 is what AA asks of small text.
FAINT = """
(() => {
  const options = {willReadFrequently: true};
  const canvas = document.createElement('canvas').getContext('2d', options);
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (colour) => {
    const [r, g, b] = rgba(colour).map((x) => x / 255)
      .map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (x) => {
    const colour = getComputedStyle(x).backgroundColor;
    return rgba(colour)[3] === 255 || !x.parentElement ? colour : behind(x.parentElement);
  };
  const faint = [], seen = new Set();
  for (const x of document.querySelectorAll('body *')) {
    const own = [...x.childNodes].some((y) => y.nodeType === 3 && y.data.trim());
    if (!own || !x.checkVisibility() || ['SCRIPT', 'title'].includes(x.tagName)) continue;
    const style = getComputedStyle(x), svg = x instanceof SVGElement;
    const pair = [svg ? style.fill : style.color, behind(x)];
    if (seen.has(pair.join())) continue;
    seen.add(pair.join());
    const [a, b] = pair.map(luminance).sort((a, b) => b - a);
    if ((a + 0.05) / (b + 0.05) < 4.5) faint.push([x.outerHTML.slice(0, 80), ...pair]);
  }
  return {faint, pairs: seen.size};
})()
"""


@pytest.fixture(scope='module')
def output(tmp_path_factory):
  folder = tmp_path_factory.mktemp('made')
  make(folder, folder / 'site')
  return folder / 'site'


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
  with browser(tmp_path_factory.mktemp('profile')) as found:
    yield found


@pytest.fixture
def chrome(shared, output):
  """On the page of the table, wide and light; at the end nothing has been complained of."""
  shared.errors.clear()
  shared.requests.clear()
  shared.width(1400)
  shared.media('light')
  shared.open(output / 'made.html')
  shared.run('localStorage.clear(); delete document.documentElement.dataset.theme')
  yield shared
  assert shared.errors == []
  assert all(x.startswith(('file:', 'data:')) for x in shared.requests)


def column(chrome, number, table=0):
  rows = f'document.querySelectorAll("table")[{table}].tBodies[0].rows'
  return chrome.run(f'[...{rows}].map((x) => x.cells[{number}].textContent)')


def head(number, table=0):
  return f'document.querySelectorAll("table")[{table}].tHead.rows[0].cells[{number}]'


def click(chrome, number, table=0):
  chrome.run(f'{head(number, table)}.querySelector("button").click()')
  return chrome.run(f'{head(number, table)}.getAttribute("aria-sort")')


def test_the_console_notices_what_fails(chrome):
  """The other tests see nothing there: so here it is seen that something can be."""
  chrome.run('console.error("no"); setTimeout(() => nothing(), 0)')
  chrome.run(
    'document.head.append(Object.assign(document.createElement("img"), {src: "x"}))'
  )
  while len(chrome.errors) < 3:
    chrome._note(chrome._next())
  chrome.errors.clear()


def test_sorting_is_by_value_and_keeps_what_is_absent_last(chrome):
  first = column(chrome, 0)
  assert first == [LABEL, 'low_rank', 'lora', 'elas', 'cola']
  assert click(chrome, 2) == 'ascending'  # bits per byte: 9 before 11 before 100.5
  assert column(chrome, 2) == [
    '9.0000 ± 0.0000',
    '11.0000 ± 1.4142',
    '100.5000 (1 of 2 seeds, 1 diverged)',
    '-',
    '-',
  ]
  assert click(chrome, 2) == 'descending'
  assert column(chrome, 0) == ['lora', LABEL, 'low_rank', 'elas', 'cola']
  assert click(chrome, 1) == 'ascending'  # published: there is but one
  assert chrome.run(f'{head(2)}.getAttribute("aria-sort")') is None
  assert column(chrome, 0)[0] == LABEL
  click(chrome, 1)
  assert click(chrome, 1) is None and column(chrome, 0) == first


def test_number_of_a_cell(chrome):
  for text, value in (
    ('2.0800 ± 0.1236', 2.08),
    ('1,869,888', 1869888),
    ('22.44 MB', 22.44e6),
    ('60m', 60e6),
    ('1b', 1e9),
    ('60m 34.06 [P], 1b 15.56 [P]', 34.06),
    ('digits 97.30 ± 0.20 [R]', 97.3),
    ('0.002 (at the edge)', 0.002),
    ('-1.5e-3', -0.0015),
    ('3.117 s [3.105, 3.126]', 3.117),
    ('12 of 30', 12),
    ('elas', None),
    ('none in 3 runs', None),
  ):
    assert chrome.run(f'number("{text}")') == value, text


def test_sorting_by_keyboard_and_of_a_measurement(chrome, output):
  chrome.open(output / 'benchmark_gpu_a_chip_times.html')
  chrome.run(f'{head(1)}.querySelector("button").focus()')
  chrome.press('Enter', 13)
  assert chrome.run(f'{head(1)}.getAttribute("aria-sort")') == 'ascending'
  assert column(chrome, 1) == ['97.5', '1,708.7', '-']
  chrome.press('Enter', 13)
  assert column(chrome, 1) == ['1,708.7', '97.5', '-']


def test_search_leaves_the_rows_that_have_all_words(chrome):
  shown = """
    (text) => {
      const input = document.getElementById('search');
      input.value = text;
      input.dispatchEvent(new Event('input'));
      return [...document.querySelectorAll('main tbody tr:not([hidden])')]
        .map((x) => x.cells[0].textContent);
    }
  """
  everything = chrome.run(f'({shown})("")')
  assert chrome.run(f'({shown})("LORA finished")') == ['lora']
  said = chrome.run('document.querySelector(".tools output").textContent')
  assert said == f'1 of {len(everything)} rows'
  assert chrome.run(f'({shown})("no such row")') == []
  assert chrome.run(f'({shown})("")') == everything and len(everything) > 20
  assert chrome.run('document.querySelector(".tools output").textContent') == ''


def check_narrow(chrome, path):
  chrome.width(400)
  chrome.open(path)
  chrome.run(OPEN_ALL)
  assert chrome.run('document.documentElement.scrollWidth') <= 400, path.name
  assert chrome.run(STICKING_OUT) == [], path.name
  assert chrome.run(OVER) == [], path.name


@pytest.mark.parametrize('name', PAGES)
def test_a_narrow_page_does_not_scroll_sideways(chrome, output, name):
  check_narrow(chrome, output / f'{name}.html')
  chrome.run('document.querySelector(".scroll").scrollLeft = 1000')
  if name != 'benchmark_gpu_a_chip_times':  # whose table is narrow
    assert chrome.run('document.querySelector(".scroll").scrollLeft') > 0


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('name', PAGES)
def test_contrast(chrome, output, name, scheme):
  chrome.media(scheme)
  chrome.open(output / f'{name}.html')
  chrome.run(OPEN_ALL)
  found = chrome.run(FAINT)
  assert found['faint'] == [] and found['pairs'] >= 5


def test_theme_is_remembered(chrome, output):
  ground = 'getComputedStyle(document.body).backgroundColor'
  light = chrome.run(ground)
  chrome.run('document.getElementById("theme").click()')
  dark = chrome.run(ground)
  assert dark != light
  assert chrome.run('document.getElementById("theme").textContent') == 'Light'
  chrome.open(output / 'made.html')
  assert chrome.run(ground) == dark
  chrome.run('document.getElementById("theme").click()')
  assert chrome.run(ground) == light


def copy(chrome):
  """What the button says when it has been clicked."""
  button = 'document.querySelector("pre.command button")'
  chrome.run(f'{button}.click()')
  end = time.monotonic() + SECONDS
  while (said := chrome.run(f'{button}.textContent')) == 'Copy':
    assert time.monotonic() < end
  return said


def test_a_command_can_be_copied(chrome):
  text = 'python -m experiments.run made --scale=proxy'
  assert copy(chrome) == 'Copied'
  chrome.run('document.getElementById("search").focus()')
  chrome.call('Input.dispatchKeyEvent', type='keyDown', commands=['paste'])
  assert chrome.run('document.getElementById("search").value') == text


def test_a_command_is_selected_where_the_clipboard_is_refused(chrome):
  chrome.run('navigator.clipboard.writeText = () => Promise.reject(new Error("no"))')
  assert copy(chrome) == 'Selected'
  assert chrome.run('getSelection().toString()') == chrome.run(
    'document.querySelector("pre.command code").textContent'
  )


def test_on_paper_nothing_is_folded_or_cut(chrome):
  folded = '[...document.querySelectorAll("details")].map((x) => x.open)'
  assert not any(chrome.run(folded))
  chrome.media('dark', 'print')
  chrome.width(PAPER)
  chrome.run('dispatchEvent(new Event("beforeprint"))')
  assert all(chrome.run(folded))
  assert chrome.run('getComputedStyle(document.querySelector(".top")).display') == 'none'
  assert chrome.run(CUT) == []
  chrome.width(200)  # 12,345 on two lines would be other numbers
  assert chrome.run(BROKEN) == []
  chrome.run('dispatchEvent(new Event("afterprint"))')
  assert not any(chrome.run(folded))


@pytest.mark.conformance
def test_the_whole_site(chrome, tmp_path):
  report.main([f'--output={tmp_path}'])
  for path in sorted(tmp_path.glob('*.html')):
    chrome.media('light')
    check_narrow(chrome, path)
    for scheme in ('light', 'dark'):
      chrome.media(scheme)
      assert chrome.run(FAINT)['faint'] == [], (path.name, scheme)
    chrome.media('light', 'print')
    chrome.width(PAPER)
    assert chrome.run(CUT) == [], path.name
    chrome.media('light')
    chrome.width(1400)
    assert chrome.run(OVER) == [], path.name
    count = chrome.run('document.querySelectorAll("thead button").length')
    assert count or not chrome.run('document.querySelectorAll("table").length'), path.name
