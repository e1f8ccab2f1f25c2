"""``python -m pascal`` is ``pascal``."""

import sys

from pascal.main import main

sys.exit(main())
