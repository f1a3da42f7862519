"""Named, complete run configurations; a variant changes one field of its parent."""

from collections.abc import Callable

from lensmith.core.errors import ConfigError
from lensmith.recipes.sightseer import SightseerRecipe, sightseer_nano, sightseer_test

RECIPES: dict[str, Callable[[], SightseerRecipe]] = {
    "sightseer_nano": sightseer_nano,
    "sightseer_test": sightseer_test,
}


def recipe_named(name: str) -> SightseerRecipe:
    """Raises ConfigError that lists the recipes."""
    if name not in RECIPES:
        raise ConfigError("there is no such recipe", expected=", ".join(sorted(RECIPES)), actual=name)
    return RECIPES[name]()
