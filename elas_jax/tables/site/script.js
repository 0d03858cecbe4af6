// Search, sorting, copying and the theme; every page is whole without it.
'use strict';

const THEMES = ['light', 'dark'];

function remembered() {
  try {
    return localStorage.getItem('elas-jax-theme');
  } catch {
    return null; // a file: page may have no storage
  }
}

function remember(theme) {
  try {
    localStorage.setItem('elas-jax-theme', theme);
  } catch {
    // it lasts as long as the page
  }
}

function theme() {
  const own = document.documentElement.dataset.theme;
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  return own || (dark ? 'dark' : 'light');
}

// Before the page is drawn, so that it does not flash.
if (THEMES.includes(remembered())) document.documentElement.dataset.theme = remembered();

const UNITS = {
  k: 1e3, m: 1e6, b: 1e9, KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12, us: 1e-6, ms: 1e-3,
};
const ABSENT = new Set(['', '-', '–', '—', 'nan', 'NaN']);
const order = new Intl.Collator('en', {numeric: true});

// The number that a cell shows, or null: '2.0800 ± 0.1236', '1,869,888', '22.44 MB', '60m',
// and of a published value, '60m 34.06 [P]', that before its mark.
function number(text) {
  const published = text.match(/(\S+)(?: ± \S+)? \[[A-Z]\]/);
  const shown = (published ? published[1] : text).replace(/,(?=\d{3})/g, '');
  const found = shown.match(/^[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?/i);
  if (!found) return null;
  const unit = shown.slice(found[0].length).match(/^ ?([A-Za-z]+)/);
  return Number(found[0]) * ((unit && UNITS[unit[1]]) || 1);
}

function shownIn(row, column) {
  const cell = row.cells[column];
  return cell ? (cell.dataset.value ?? cell.textContent).trim() : '';
}

// Rows by a column: as numbers if most cells are some, what is absent last either way.
function sorted(rows, column, down) {
  const cells = rows.map((row) => ({row, text: shownIn(row, column)}));
  const known = cells.filter((x) => !ABSENT.has(x.text));
  for (const x of known) x.number = number(x.text);
  const numeric = known.filter((x) => x.number !== null).length * 2 > known.length;
  const first = known.filter((x) => !numeric || x.number !== null);
  first.sort((a, b) => (numeric ? a.number - b.number : order.compare(a.text, b.text)));
  if (down) first.reverse();
  return [...first, ...cells.filter((x) => !first.includes(x))].map((x) => x.row);
}

// Ascending, descending, and as it was.
function sortable(table) {
  const heads = [...table.querySelectorAll('thead th')];
  const body = table.tBodies[0];
  if (!body || body.rows.length < 2) return;
  const original = [...body.rows];
  heads.forEach((head, column) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener('click', () => {
      const next = {ascending: 'descending', descending: null};
      const was = head.getAttribute('aria-sort');
      const now = was in next ? next[was] : 'ascending';
      heads.forEach((x) => x.removeAttribute('aria-sort'));
      if (now) head.setAttribute('aria-sort', now);
      body.append(...(now ? sorted(original, column, now === 'descending') : original));
    });
  });
}

function searchable(input, output) {
  const rows = [...document.querySelectorAll('main tbody tr')];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const search = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach((row, index) => {
      row.hidden = !words.every((word) => texts[index].includes(word));
      count += !row.hidden;
    });
    output.textContent = words.length ? `${count} of ${rows.length} rows` : '';
  };
  input.addEventListener('input', search);
  if (input.value) search(); // what a browser kept over a reload
}

function copyable(block) {
  const button = document.createElement('button');
  button.type = 'button';
  button.textContent = 'Copy';
  const said = (text) => {
    button.textContent = text;
    setTimeout(() => (button.textContent = 'Copy'), 2000);
  };
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(block.textContent);
      said('Copied');
    } catch {
      getSelection().selectAllChildren(block); // no right to the clipboard
      said('Selected');
    }
  });
  block.parentElement.append(button);
}

function themed(button) {
  const other = () => (theme() === 'dark' ? 'light' : 'dark');
  const label = () => (button.textContent = other() === 'dark' ? 'Dark' : 'Light');
  button.addEventListener('click', () => {
    remember((document.documentElement.dataset.theme = other()));
    label();
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', label);
  label();
}

// On paper nothing is folded.
function printable() {
  const folded = [];
  addEventListener('beforeprint', () => {
    folded.push(...document.querySelectorAll('details:not([open])'));
    folded.forEach((x) => (x.open = true));
  });
  addEventListener('afterprint', () => folded.splice(0).forEach((x) => (x.open = false)));
}

addEventListener('DOMContentLoaded', () => {
  document.querySelectorAll('main table').forEach(sortable);
  document.querySelectorAll('pre.command > code').forEach(copyable);
  searchable(document.getElementById('search'), document.querySelector('.tools output'));
  themed(document.getElementById('theme'));
  printable();
  document.querySelector('.tools').hidden = false;
});
