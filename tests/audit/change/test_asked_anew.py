"""Snapshots and signature checks tell what holds now: a finished one is asked anew, an unfinished one goes on."""

import pytest

from lensmith.audit.change.compare import Change
from lensmith.audit.change.signature import Origin, SignatureConfig, check_signature
from lensmith.audit.change.snapshot import SnapshotConfig, compare_files, take_snapshot
from lensmith.audit.estimators.image import load_image
from lensmith.audit.querying.event_log import LOG_NAME, MATRICES_NAME
from lensmith.audit.querying.meter import BudgetError
from lensmith.audit.stages.image import IMAGE_FILE
from lensmith.core.errors import ConfigError, LensmithError, NotExposedError
from lensmith.core.exposure import Exposure
from tests.support.fake_audits import audited, fake, session_in

_HERE, _THERE = "http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"


def _recorded(endpoint, folder, name="out", *, target=_HERE, max_queries=None):
    session = session_in(folder / f"{name}.events", max_queries=max_queries, target=target)
    return take_snapshot(endpoint, SnapshotConfig(session=session, contexts=64, tokens=96), folder / f"{name}.npz")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audited")
    audited(fake(), folder, max_queries=300)
    return load_image(folder / "audit" / IMAGE_FILE)


def _checked(endpoint, image, folder, *, target=_HERE, max_queries=None):
    session = session_in(folder, max_queries=max_queries, target=target)
    return check_signature(endpoint, image, SignatureConfig(session=session))


def test_a_snapshot_of_another_day_is_of_that_day(tmp_path):
    _recorded(fake(), tmp_path, "before")
    _recorded(fake(), tmp_path, "after")
    assert compare_files(tmp_path / "before.npz", tmp_path / "after.npz").comparison.change is Change.SAME
    changed = fake(seed=4)
    info = _recorded(changed, tmp_path, "after")
    # The probe's words are no query of this fake's.
    assert 100 < changed.queries <= info.queries < 130
    assert compare_files(tmp_path / "before.npz", tmp_path / "after.npz").comparison.change is Change.ANOTHER_MODEL


def test_a_check_of_another_server_is_of_that_server(tmp_path, image):
    assert _checked(fake(), image, tmp_path).origin is Origin.SAME
    assert _checked(fake(seed=4), image, tmp_path, target=_THERE).origin is Origin.ANOTHER
    assert _checked(fake(), image, tmp_path, target=_THERE).origin is Origin.SAME


def test_what_was_interrupted_goes_on(tmp_path, image):
    first, second = fake(), fake()
    with pytest.raises(BudgetError):
        _recorded(first, tmp_path, max_queries=60)
    whole = _recorded(second, tmp_path)
    assert second.queries < 80 < first.queries + second.queries <= whole.queries + 8
    first, second = fake(), fake()
    assert _checked(first, image, tmp_path / "check", max_queries=54).origin is Origin.COULD_NOT_TELL
    assert _checked(second, image, tmp_path / "check").origin is Origin.SAME
    assert first.queries > 40
    assert second.queries < 40


def test_what_was_interrupted_goes_on_with_no_other_target(tmp_path, image):
    with pytest.raises(BudgetError):
        _recorded(fake(), tmp_path, max_queries=60)
    other = fake(seed=4)
    with pytest.raises(ConfigError, match="different: target"):
        _recorded(other, tmp_path, target=_THERE)
    _checked(fake(), image, tmp_path / "check", max_queries=54)
    with pytest.raises(ConfigError, match="different: target"):
        _checked(other, image, tmp_path / "check", target=_THERE)
    assert other.queries == 0


def test_that_nothing_is_told_is_asked_anew_too(tmp_path, image):
    closed = Exposure.text_only()
    with pytest.raises(NotExposedError):
        _recorded(fake(closed), tmp_path)
    assert _recorded(fake(), tmp_path).contexts == 64
    assert _checked(fake(closed), image, tmp_path / "check").origin is Origin.COULD_NOT_TELL
    assert _checked(fake(), image, tmp_path / "check").origin is Origin.SAME


def test_nothing_of_another_session_is_removed(tmp_path, image):
    audited(fake(), tmp_path, max_queries=300)
    folder = tmp_path / "audit"
    log = (folder / LOG_NAME).read_bytes()
    with pytest.raises(LensmithError, match="another audit"):
        _checked(fake(), image, folder)
    assert (folder / LOG_NAME).read_bytes() == log
    assert list((folder / MATRICES_NAME).iterdir())
