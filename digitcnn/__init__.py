"""digitcnn: convolutional networks for MNIST and SVHN, as an executable report.

Data flows one way: files, sources, data, runs, model, training, checkpoints, predictions,
evaluation, figures, chapters. A module knows only what lies before it.
"""

import os
import time

# Large pages for torch's big CPU tensors: fewer page faults, 7 % faster training (measured).
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# Matrix products on CUDA are deterministic only with this, and it must be set before torch starts.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

BEGAN = time.monotonic()  # before the heavy imports, for the wall times of chapters
__version__ = "1.0.0"
