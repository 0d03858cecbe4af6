"""Kinds of problems by name, config.task: what is asked of data, model and loss."""

from elas_jax.config.config import Config
from elas_jax.tasks.labels import CLASSIFICATION, REGRESSION
from elas_jax.tasks.language import LANGUAGE
from elas_jax.tasks.preference import PREFERENCE
from elas_jax.tasks.task import Task

TASKS = {
  'language': LANGUAGE,
  'classification': CLASSIFICATION,
  'regression': REGRESSION,
  'preference': PREFERENCE,
}


def task_of(config: Config) -> Task:
  return TASKS[config.task]
