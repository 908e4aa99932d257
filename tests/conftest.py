"""Before torch is loaded: one thread, for the tests and for the processes that they start.

Small tensors gain nothing from a second one, and tests that train here what a worker has trained compare
digit by digit, while another number of threads rounds differently.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
