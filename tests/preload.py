"""What the server of ranks imports before it forks them (tests/ranks.py): all that tests at several ranks need."""

import gc

import deepspeed  # noqa: F401
import hypothesis  # noqa: F401
import open_clip  # noqa: F401
import pytest  # noqa: F401
import sklearn.linear_model  # noqa: F401
import torch  # noqa: F401

import distpre.train  # noqa: F401
from distpre.runtime.build import compile_at_first_call
from distpre.views.text import open_clips

with compile_at_first_call():
    import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401  (each engine imports it: 2 s)

open_clips(None)
gc.freeze()  # no rank walks through what it never frees, nor copies its pages
