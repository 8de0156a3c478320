"""Fixtures of the demonstration's tests: small results, everything loaded, a running server."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from finished import finish

from digitcnn import division, predictions
from digitcnn.demo import server
from digitcnn.demo import session as module
from digitcnn.report import representation
from digitcnn.sources import NAMES


def layout(points):
    """Stands for UMAP."""
    axes = np.random.default_rng(0).normal(size=(points.shape[1], 2))
    return (points @ axes).astype(np.float16)


@pytest.fixture(scope="module")
def quick_root(tmp_path_factory):
    """A results tree of the quick profile: untrained models, their predictions, and maps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITCNN_PROFILE", "quick")
        patch.setenv("DIGITCNN_TRAIN", "never")
        patch.setenv("DIGITCNN_ROOT", str(tmp_path_factory.mktemp("root")))
        patch.setattr(representation, "layout", layout)
        division._pool.cache_clear()  # reading writes the manifest into this tree
        for name in NAMES:
            finish(name)
        for model in NAMES:
            for name in NAMES:
                representation.coordinates(representation.Map(model, (name,)))
                predictions.predict(model, name)
        yield
    division._pool.cache_clear()


@pytest.fixture(scope="module")
def answers(quick_root):
    """Everything loaded; nothing may be missing."""
    found = module.Answers(seed=0)
    assert list(found.load()) == []
    assert set(found.state().values()) == {"ready"}
    return found


@pytest.fixture
def served(answers):
    """A running server."""
    running = server.listen(0)
    running.answers = answers
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()
