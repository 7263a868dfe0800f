"""What the server of ranks imports before it forks them (tests/ranks.py): all that tests at several ranks need."""

import hypothesis  # noqa: F401
import pytest  # noqa: F401

import tools.preload  # noqa: F401
