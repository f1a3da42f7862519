"""Writes the list of pinned pages from folders that `lensmith data pages` made, one for each split.

`python scripts/pin_pages.py tune=FOLDER test=FOLDER`
"""

import sys
from pathlib import Path

from lensmith.core import config
from lensmith.data.packages import Registry
from lensmith.data.webpages.real.collect import MANIFEST, PackageRecord, PagesManifest
from lensmith.data.webpages.real.pinned import PINNED, PinnedList, PinnedPackage, PinnedPage, Split

PLACE = Path(__file__).resolve().parent.parent / "src/lensmith/data/webpages/real" / PINNED


def pinned(split: Split, record: PackageRecord) -> PinnedPackage:
    """What a set takes of a package."""
    return PinnedPackage(
        registry=Registry(record.registry),
        name=record.name,
        version=record.version,
        sha256=record.sha256,
        license=record.license,
        split=split,
        stylesheets=record.stylesheets,
        pages=tuple(PinnedPage(file=page.file, path=page.path, sha256=page.sha256) for page in record.pages),
    )


def main(arguments: list[str]) -> int:
    """Pins what is in the folders; packages of which no page was kept are left out."""
    packages = []
    for argument in arguments:
        split, _, folder = argument.partition("=")
        manifest = config.load(PagesManifest, Path(folder) / MANIFEST)
        packages += [pinned(Split(split), record) for record in manifest.packages if record.pages]
    config.save(PinnedList(packages=tuple(packages)), PLACE)
    print(f"{sum(len(package.pages) for package in packages)} pages of {len(packages)} packages: {PLACE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
