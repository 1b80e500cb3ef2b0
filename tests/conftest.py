"""What has to be set before JAX starts or MuJoCo is imported."""

import os
import tempfile

# Tests compile the same small programs again and again, in this process and in those they start.
_compiled = tempfile.TemporaryDirectory(prefix="es-rl-tests-")
os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

from envs.pictures.headless import go_headless  # noqa: E402
from es_rl.devices import use_cpu_devices  # noqa: E402

go_headless()
use_cpu_devices(2)
