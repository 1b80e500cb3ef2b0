"""What has to be set before JAX starts or MuJoCo is imported."""

from envs.rendering import go_headless
from es_rl.devices import use_cpu_devices

go_headless()
use_cpu_devices(2)
