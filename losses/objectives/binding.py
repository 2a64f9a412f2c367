"""Objectives that bind modifiers to their nouns: SynGen, CONFORM."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from losses.attention import FLOOR, smooth_as_given
from losses.objectives.inputs import ObjectiveInputs, drop_absent, objective
from losses.objectives.maps import mean_where, sum_where, symmetric_kl


@objective(needs=("modifiers", "modifier_of"), uses=("others", "others_present"))
def syngen(inputs: ObjectiveInputs, entities: bool = False) -> Tensor:
    """Modifiers like their nouns, both unlike the other words (SynGen, L_pos + L_neg; Rassin et al.
    2023), [B].

    With d = ½ (KL(p‖q) + KL(q‖p)) of maps as distributions over pixels, a pair of modifier m and
    noun n adds d(m, n) − ½ mean over u of (d(m, u) + d(n, u)): u are all words of the prompt that
    are not the noun or one of its modifiers. Pairs are summed. As released; the release reads maps
    as they are, and of a word of several tokens the greatest divergence among them, where here
    its map is their mean.

    ``entities`` (``include_entities``, off in the release): a noun without modifiers adds −mean
    over u of d(n, u).
    """
    others = inputs.objects[:, :0] if inputs.others is None else inputs.others
    if inputs.others_present is None:
        rest = torch.ones(others.shape[:2], dtype=torch.bool, device=others.device)
    else:
        rest = inputs.others_present
    maps = torch.cat((inputs.objects, inputs.words, drop_absent(others, rest)), 1)
    there = torch.cat((inputs.exists, inputs.bound, rest), 1)
    count = inputs.exists.shape[1]
    nouns = torch.arange(count, device=maps.device).expand(len(maps), -1)
    group = torch.cat((nouns, inputs.modified, torch.full_like(rest, -1, dtype=torch.long)), 1)
    divergence = symmetric_kl(maps)  # [B, words, words]
    outside = (group[:, :, None] != group[:, None]) & there[:, None]
    apart = torch.where(outside, divergence, 0.0).sum(2) / outside.sum(2).clamp_min(1)  # [B, words]

    of_words = slice(count, count + inputs.bound.shape[1])
    at = inputs.modified
    together = divergence[:, of_words].gather(2, at[..., None])[..., 0]
    pull = together - (apart[:, of_words] + apart.gather(1, at)) / 2
    loss = sum_where(pull, inputs.bound)
    if entities:
        modifiers = torch.zeros_like(nouns).scatter_add(1, at, inputs.bound.long())
        loss = loss - sum_where(apart[:, :count], inputs.exists & (modifiers == 0))
    return loss


@objective(
    uses=("modifiers", "modifier_of", "previous", "previous_modifiers"),
    fewest=2,
    token_softmax=True,
)
def conform(
    inputs: ObjectiveInputs, temperature: float = 0.5, size: int = 3, sigma: float = 0.5
) -> Tensor:
    """Contrast of smoothed maps (CONFORM, InfoNCE; Meral et al. 2024), [B].

    An object, its modifiers and their maps of the step before form a class. With s the cosine of
    two maps over pixels, each ordered pair (a, p) of a class gives −log(e^{s(a,p)/τ} /
    (e^{s(a,p)/τ} + ∑ₙ e^{s(a,n)/τ})), n all maps of other classes; mean over pairs. As released:
    τ = .5, smoothing on, ``previous`` left out at the first step. Where classes have one member
    each (no modifier, no step before) there is no pair, and the loss is 0 without a gradient.
    """
    maps, there = [inputs.objects, inputs.words], [inputs.exists, inputs.bound]
    nouns = torch.arange(inputs.objects.shape[1], device=inputs.maps.device)
    group = [nouns.expand(len(inputs.maps), -1), inputs.modified]
    for name, member in (("previous", 0), ("previous_modifiers", 1)):
        if getattr(inputs, name) is not None:
            maps.append(inputs.earlier(name))
            there.append(there[member])
            group.append(group[member])
    exists, classes = torch.cat(there, 1), torch.cat(group, 1)
    smoothed = smooth_as_given(torch.cat(maps, 1), size, sigma)
    unit = normalize(smoothed.flatten(2), dim=-1, eps=FLOOR)
    score = unit @ unit.mT / temperature  # [B, n, n]
    both = exists[:, :, None] & exists[:, None]
    same = classes[:, :, None] == classes[:, None]
    positive = both & same & ~torch.eye(exists.shape[1], dtype=torch.bool, device=exists.device)
    negative = both & ~same
    # Of rows without a negative the sum is e^-inf = 0
    against = torch.where(negative, score, -torch.inf)
    against = torch.where(negative.any(2, keepdim=True), against, 0.0).logsumexp(2, keepdim=True)
    counted = positive & negative.any(2, keepdim=True)
    return mean_where(torch.logaddexp(score, against) - score, counted)
