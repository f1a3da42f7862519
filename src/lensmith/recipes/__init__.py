"""Named, complete run configurations; a variant changes one field of its parent."""

from collections.abc import Callable

from lensmith.core.errors import ConfigError
from lensmith.recipes.deepseek_vl import (
    deepseek_vl_1_3b,
    deepseek_vl_7b,
    deepseek_vl_hybrid_test,
    deepseek_vl_test,
    deepseek_vl_toy,
)
from lensmith.recipes.mm1 import mm1_captions, mm1_test, mm1_toy, mm1_toy_moe
from lensmith.recipes.pretraining import PretrainingRecipe
from lensmith.recipes.sightseer import SightseerRecipe, sightseer_nano, sightseer_test

Recipe = PretrainingRecipe | SightseerRecipe

RECIPES: dict[str, Callable[[], Recipe]] = {
    "deepseek_vl_1_3b": deepseek_vl_1_3b,
    "deepseek_vl_7b": deepseek_vl_7b,
    "deepseek_vl_hybrid_test": deepseek_vl_hybrid_test,
    "deepseek_vl_test": deepseek_vl_test,
    "deepseek_vl_toy": deepseek_vl_toy,
    "mm1_captions": mm1_captions,
    "mm1_test": mm1_test,
    "mm1_toy": mm1_toy,
    "mm1_toy_moe": mm1_toy_moe,
    "sightseer_nano": sightseer_nano,
    "sightseer_test": sightseer_test,
}


def recipe_named(name: str) -> Recipe:
    """Raises ConfigError that lists the recipes."""
    if name not in RECIPES:
        raise ConfigError("there is no such recipe", expected=", ".join(sorted(RECIPES)), actual=name)
    return RECIPES[name]()


def shipped_page_seed() -> int:
    """The stream of generated pages that the model that ships was trained on."""
    return sightseer_nano().page_seed
