"""What may be asked of modules, trainers and data that are not ours: every optional contract, and who looks.

Nothing here has to be inherited from. A module keeps a contract by having the attributes; callbacks,
trainers, data modules and the command line find out by the functions here, and nowhere else. Where a contract
is kept by half, or by a method that cannot be called as it says, they raise a
:class:`~lightning_attractors.errors.SettingError` of one line.

============================  ===============================================================================
contract                      who asks
============================  ===============================================================================
:class:`Certified`            ``RobustnessCurve``, with the norm of :class:`CertifiedInNorm` and the box of
                              :class:`CertifiedInBox`
:class:`HasEquilibria`        ``StabilityCertificate``, ``AttractorPictures``
:class:`HasStepMap`           ``StabilityCertificate``
:class:`HasGainBounds`        ``StabilityCertificate``
:class:`HasTraps`             ``StabilityCertificate``, ``BasinPictures``
:class:`HasTubes`             ``BasinPictures``
:class:`HasDivergenceHint`    ``FiniteLoss``
:class:`Monitored`            ``BestCheckpoint``
:class:`Pictured`             ``AttractorPictures``, with the optional ones of :class:`PicturedInDetail`
:class:`HasFilters`           ``FScore``, with ``currents`` of :class:`HasCurrents`
:class:`LearnsFilters`        ``TwoPhaseTrainer``
:class:`HasFrozenPart`        ``TwoPhaseTrainer``'s cache of features
:class:`ServesFeatures`       the same, of the training set
:class:`PhasedTrainer`        models, data modules, ``BestCheckpoint`` and ``FScore``, of the trainer
:class:`BatchedData`          ``TwoPhaseTrainer``, of the data module
:class:`NamesClasses`         ``AttractorPictures``, of the data module; ``Predictions``, of the module too
============================  ===============================================================================
"""

from lightning_attractors.contracts.datasets import (
    batch_size_of,
    class_names_of,
    classes_of,
    data_name,
    files_of,
    labels_of,
    linked_of,
    samplers_of,
)
from lightning_attractors.contracts.lookups import (
    Box,
    Certificate,
    awaits_length,
    best_weights,
    certificate_of,
    certified_box,
    certified_norm,
    checked_radii,
    coupling_of,
    currents_of,
    divergence_hint,
    equilibria_of,
    evaluates_alone,
    feature_server,
    filter_learner,
    frozen_part,
    gain_bounds_of,
    gradient_scaler,
    is_noisy,
    monitored,
    mse_over_time,
    name_of,
    norm_exponent,
    observable_of,
    phase_of,
    phases_of,
    pictured,
    step_map_of,
    takes_figures,
    traps_of,
    tubes_of,
    vector_field_of,
    watched_metric,
)
from lightning_attractors.contracts.protocols import (
    BatchedData,
    Certified,
    CertifiedInBox,
    CertifiedInNorm,
    FilterPhase,
    FilterPrecision,
    FoundTraps,
    HasCurrents,
    HasDivergenceHint,
    HasEquilibria,
    HasFilters,
    HasFrozenPart,
    HasGainBounds,
    HasStepMap,
    HasTraps,
    HasTubes,
    LearnsFilters,
    Monitored,
    NamesClasses,
    PhasedTrainer,
    Pictured,
    PicturedInDetail,
    ServesFeatures,
)

__all__ = [
    "BatchedData",
    "Box",
    "Certificate",
    "Certified",
    "CertifiedInBox",
    "CertifiedInNorm",
    "FilterPhase",
    "FilterPrecision",
    "FoundTraps",
    "HasCurrents",
    "HasDivergenceHint",
    "HasEquilibria",
    "HasFilters",
    "HasFrozenPart",
    "HasGainBounds",
    "HasStepMap",
    "HasTraps",
    "HasTubes",
    "LearnsFilters",
    "Monitored",
    "NamesClasses",
    "PhasedTrainer",
    "Pictured",
    "PicturedInDetail",
    "ServesFeatures",
    "awaits_length",
    "batch_size_of",
    "best_weights",
    "certificate_of",
    "certified_box",
    "certified_norm",
    "checked_radii",
    "class_names_of",
    "classes_of",
    "coupling_of",
    "currents_of",
    "data_name",
    "divergence_hint",
    "equilibria_of",
    "evaluates_alone",
    "feature_server",
    "files_of",
    "filter_learner",
    "frozen_part",
    "gain_bounds_of",
    "gradient_scaler",
    "is_noisy",
    "labels_of",
    "linked_of",
    "monitored",
    "mse_over_time",
    "name_of",
    "norm_exponent",
    "observable_of",
    "phase_of",
    "phases_of",
    "pictured",
    "samplers_of",
    "step_map_of",
    "takes_figures",
    "traps_of",
    "tubes_of",
    "vector_field_of",
    "watched_metric",
]
