"""Linear algebra below everything else: norms from above, matrices near isometries, how fast products are."""

from lightning_attractors.linalg.autocast import product_dtype
from lightning_attractors.linalg.convolution_symbols import Frequencies, Grid, half_symbols, symbols
from lightning_attractors.linalg.eigenvalue_discs import (
    MOST_NODES_BY_EIGENVALUES,
    PowerNorms,
    active_nodes,
    power_norms,
)
from lightning_attractors.linalg.gram_iteration import gram_bounds, products_are_exact
from lightning_attractors.linalg.newton_schulz import newton_schulz_step
from lightning_attractors.linalg.operator_norms import (
    Padding,
    convolution_norm,
    matrix_norm,
    quick_convolution_norm,
    quick_matrix_norm,
)
from lightning_attractors.linalg.orthogonalization import orthogonalize
from lightning_attractors.linalg.product_speed import (
    ProductSpeed,
    has_small_products,
    largest_product,
    measure_products,
    product_seconds,
)

__all__ = [
    "MOST_NODES_BY_EIGENVALUES",
    "Frequencies",
    "Grid",
    "Padding",
    "PowerNorms",
    "ProductSpeed",
    "active_nodes",
    "convolution_norm",
    "gram_bounds",
    "half_symbols",
    "has_small_products",
    "largest_product",
    "matrix_norm",
    "measure_products",
    "newton_schulz_step",
    "orthogonalize",
    "power_norms",
    "product_dtype",
    "product_seconds",
    "products_are_exact",
    "quick_convolution_norm",
    "quick_matrix_norm",
    "symbols",
]
