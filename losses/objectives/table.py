"""All objectives by name; each says what it needs (see `inputs.Objective`)."""

from __future__ import annotations

from losses.objectives.binding import conform, syngen
from losses.objectives.excitation import attend_and_excite, enhance
from losses.objectives.initial_noise import initno_clean, initno_response
from losses.objectives.inputs import Objective
from losses.objectives.layout import bounded_attention, boxdiff, layout
from losses.objectives.logic import (
    predicated_exclusion,
    predicated_existence,
    predicated_modification,
    predicated_possession,
)
from losses.objectives.overlap import (
    a_star_segregation,
    center_distance,
    compactness,
    iou,
    kl,
    separate,
)
from losses.objectives.retention import a_star_retention, initno_alignment
from losses.objectives.self_attention import initno_conflict, self_cross
from losses.objectives.token_compose import token_compose_pixel, token_compose_token

OBJECTIVES: dict[str, Objective] = {
    one.name: one
    for one in (
        *(attend_and_excite, enhance),
        *(separate, iou, center_distance, kl, compactness),
        *(conform, syngen),
        *(boxdiff, layout, bounded_attention),
        *(token_compose_token, token_compose_pixel),
        *(predicated_existence, predicated_modification),
        *(predicated_exclusion, predicated_possession),
        *(a_star_segregation, a_star_retention),
        self_cross,
        *(initno_response, initno_conflict, initno_clean, initno_alignment),
    )
}
