"""``python -m bench.workloads NAME|FILE``: see `bench.workloads.describe`."""

import sys

from bench.workloads.describe import main

sys.exit(main())
