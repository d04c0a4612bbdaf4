"""``python -m aifaceswap`` is the command ``aifaceswap``."""

import sys

from aifaceswap.cli import main

sys.exit(main())
