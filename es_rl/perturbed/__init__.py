"""Networks with low-rank perturbed parameters, without forming the perturbed matrices."""

from es_rl.perturbed.apply import apply_selected, materialize, perturbed_apply, select
from es_rl.perturbed.layout import layout

__all__ = ["apply_selected", "layout", "materialize", "perturbed_apply", "select"]
