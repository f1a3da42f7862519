"""Puts image features where their placeholders stand in the token stream: once, for every family.

A placeholder stands for one feature. Features fill placeholders in reading order, so counts that do not match would
shift one picture into the next without any other sign; therefore they are compared, and named, before anything moves.

Legend: B samples, T tokens, L language width, N pictures, F features of all pictures.
"""

from itertools import accumulate

from torch import Tensor

from lensmith.core.errors import ShapeError

_MOST_LISTED = 16
_HINT = "the processor writes one placeholder a feature: prepare text and pictures with the same processor settings"


def splice(
    embeds_BTL: Tensor,
    input_ids_BT: Tensor,
    features_FL: Tensor,
    image_token_id: int,
    counts_N: Tensor | None = None,
) -> Tensor:
    """Embeddings (B, T, L) with the features in place of the placeholders; the inputs stay as they are.

    `counts_N` (features a picture) lets it also check that no picture begins in one sample and ends in the next.
    Raises ShapeError with both counts where placeholders and features differ in number.
    """
    placeholders_per_sample(input_ids_BT, features_FL, image_token_id, counts_N)
    if features_FL.shape[1] != embeds_BTL.shape[2]:
        raise ShapeError("features have the wrong width", expected=embeds_BTL.shape[2], actual=features_FL.shape[1])
    features_FL = features_FL.to(device=embeds_BTL.device, dtype=embeds_BTL.dtype)
    # A third of the time of masked_scatter, forward and backward, on a CPU.
    places_F = (input_ids_BT == image_token_id).flatten().nonzero().squeeze(1)
    return embeds_BTL.flatten(0, 1).index_copy(0, places_F, features_FL).view_as(embeds_BTL)


def placeholders_per_sample(
    input_ids_BT: Tensor, features_FL: Tensor, image_token_id: int, counts_N: Tensor | None = None
) -> list[int]:
    """How many of the features belong to each sample. Raises ShapeError as `splice` does."""
    per_sample: list[int] = (input_ids_BT == image_token_id).sum(dim=1).tolist()
    _check_counts(per_sample, features_FL.shape[0], None if counts_N is None else counts_N.tolist())
    return per_sample


def refuse_placeholders(input_ids_BT: Tensor, image_token_id: int) -> None:
    """For input without pictures. Raises ShapeError where it has placeholders."""
    per_sample = (input_ids_BT == image_token_id).sum(dim=1).tolist()
    if any(per_sample):
        raise ShapeError(
            "the text has image placeholders, but there are no pictures",
            expected=f"features for {sum(per_sample)} placeholders ({_listing(per_sample)} a sample)",
            actual="0 features",
            hint="pass pixel_values",
        )


def _check_counts(per_sample: list[int], features: int, per_picture: list[int] | None) -> None:
    pictures = "" if per_picture is None else f" ({_listing(per_picture)} a picture)"
    placeholders = f"{sum(per_sample)} placeholders ({_listing(per_sample)} a sample)"
    if sum(per_sample) != features:
        raise ShapeError(
            "image placeholders and image features differ in number",
            expected=f"{sum(per_sample)} features, one for each of {placeholders}",
            actual=f"{features} features{pictures}",
            hint=_HINT,
        )
    if per_picture is None:
        return
    ends_of_pictures = {0, *accumulate(per_picture)}
    for sample, end in enumerate(accumulate(per_sample)):
        if end not in ends_of_pictures:
            raise ShapeError(
                f"a picture would be split between sample {sample} and the next",
                expected="samples whose placeholders hold whole pictures",
                actual=f"{placeholders}, but {features} features{pictures}",
                hint=_HINT,
            )


def _listing(counts: list[int]) -> str:
    shown = ", ".join(map(str, counts[:_MOST_LISTED]))
    return f"{shown}, ..." if len(counts) > _MOST_LISTED else shown
