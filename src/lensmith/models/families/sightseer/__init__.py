"""Sightseer (arXiv 2403.09029): screenshots to HTML. Small models, one of which ships with the package."""

from lensmith.models.families.base import Family
from lensmith.models.families.sightseer.loading import SHIPPED, is_sightseer, load

FAMILY = Family(title="Sightseer", recognises=is_sightseer, load=load, shipped=SHIPPED)

__all__ = ["FAMILY", "SHIPPED", "is_sightseer", "load"]
