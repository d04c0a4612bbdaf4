"""What schemathesis cannot make up: a cursor is opaque, only the service makes one."""

from __future__ import annotations

import importlib
import os

from hypothesis import strategies as st

# By name, because it is installed for this session only.
schemathesis = importlib.import_module("schemathesis")
schemathesis.openapi.format("cursor", st.just(os.environ["AIFACESWAP_CURSOR"]))
