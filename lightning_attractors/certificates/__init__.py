"""What can be proved of a trained model."""

# They enter the rules of the layers that are known from the start.
from lightning_attractors.certificates import interval_rules, l2_rules  # noqa: F401
from lightning_attractors.certificates.class_code import remember
from lightning_attractors.certificates.equilibria import (
    EquilibriumCertificate,
    Point,
    certify_equilibria,
    check_maps,
)
from lightning_attractors.certificates.faithful import interval_logits, l2_logits, require_faithful
from lightning_attractors.certificates.flights import MOST_NODES_OF_BLOCKS, Flight, flight
from lightning_attractors.certificates.float32_errors import Evaluation
from lightning_attractors.certificates.graph_radii import GraphRadius, l2_graph_radius, linf_graph_radius
from lightning_attractors.certificates.guards import (
    computes_as,
    convolves_by_sums,
    require_sums,
    summing_products,
    sums_in_float32,
)
from lightning_attractors.certificates.intervals import linf_box, margins, propagate
from lightning_attractors.certificates.linearizations import jacobian
from lightning_attractors.certificates.lipschitz import (
    evaluate_in_float32,
    l2_radii,
    lipschitz_bounds,
    margin_radii,
    pair_constants,
    pair_radii,
)
from lightning_attractors.certificates.nmode_gain import finite_time_gain, published_gain
from lightning_attractors.certificates.radii import (
    certified_accuracy,
    interval_radii,
    interval_verified,
    lipschitz_radii,
    margin_constants,
)
from lightning_attractors.certificates.rounding import UNIT, largest_size, rounding_error
from lightning_attractors.certificates.rules import isometry, register_rule
from lightning_attractors.certificates.spectra import Spectrum, spectrum
from lightning_attractors.certificates.traps import Traps, find_traps
from lightning_attractors.certificates.tube_radii import basin_radii, class_radii
from lightning_attractors.certificates.tubes import Tube, ball
from lightning_attractors.norms import NormName

__all__ = [
    "MOST_NODES_OF_BLOCKS",
    "UNIT",
    "EquilibriumCertificate",
    "Evaluation",
    "Flight",
    "GraphRadius",
    "NormName",
    "Point",
    "Spectrum",
    "Traps",
    "Tube",
    "ball",
    "basin_radii",
    "certified_accuracy",
    "certify_equilibria",
    "check_maps",
    "class_radii",
    "computes_as",
    "convolves_by_sums",
    "evaluate_in_float32",
    "find_traps",
    "finite_time_gain",
    "flight",
    "interval_logits",
    "interval_radii",
    "interval_verified",
    "isometry",
    "jacobian",
    "l2_graph_radius",
    "l2_logits",
    "l2_radii",
    "largest_size",
    "linf_box",
    "linf_graph_radius",
    "lipschitz_bounds",
    "lipschitz_radii",
    "margin_constants",
    "margin_radii",
    "margins",
    "pair_constants",
    "pair_radii",
    "propagate",
    "published_gain",
    "register_rule",
    "remember",
    "require_faithful",
    "require_sums",
    "rounding_error",
    "spectrum",
    "summing_products",
    "sums_in_float32",
]
