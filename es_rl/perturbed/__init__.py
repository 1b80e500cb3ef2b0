"""Networks under low-rank perturbations of their parameters, which are never formed."""

from es_rl.perturbed.apply import apply_selected, materialize, perturbed_apply, select
from es_rl.perturbed.layout import layout

__all__ = ["apply_selected", "layout", "materialize", "perturbed_apply", "select"]
