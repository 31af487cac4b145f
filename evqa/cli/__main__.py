"""``python -m evqa.cli``, for ``torchrun`` and ``accelerate launch``."""

import sys

from evqa.cli import main

sys.exit(main())
