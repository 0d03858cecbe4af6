"""The console commands of an installed package, elas-train and so on.

Each, elas-NAME, is `python -m elas_jax.NAME`. What takes long is imported once Control-C is
one line.
"""

import importlib

from elas_jax.config.cli import run_command


def train() -> None:
  _run('train')


def evaluate() -> None:
  _run('evaluate')


def generate() -> None:
  _run('generate')


def measure() -> None:
  _run('measure')


def reward() -> None:
  _run('reward')


def pairs() -> None:
  _run('pairs')


def watch() -> None:
  _run('watch')


def compare() -> None:
  _run('compare')


def convert() -> None:
  _run('convert')


def audit() -> None:
  _run('audit')


def _run(name: str) -> None:
  run_command(importlib.import_module(f'elas_jax.{name}').main)
