"""A fake endpoint that tells less exactly while an audit is at a certain stage."""

from lensmith.audit.findings.finding import ReadOut
from lensmith.audit.run import AuditConfig, audit
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from tests.support.fake_audits import session_in


class CoarserAt:
    """The same model by two interfaces: `coarse` is asked during the stage of that name, `fine` else."""

    def __init__(self, stage, *, fine, coarse, **switches):
        self._fine, self._coarse = (FakeEndpoint(exposes=exposes, **switches) for exposes in (fine, coarse))
        self._stage, self._asked = stage, self._fine
        self.truth = self._fine.truth

    def answer(self, requests):
        return self._asked.answer(requests)

    def supports(self):
        return self._fine.supports()

    def metadata(self):
        return self._fine.metadata()

    def audited(self, folder, read_out=ReadOut.P2, *, max_queries=6_000, **options):
        """The report of an audit through one read-out."""
        config = AuditConfig(
            session=session_in(folder / "audit", max_queries=max_queries), read_outs=(read_out,), **options
        )
        return audit(self, config, self._follow)

    def _follow(self, progress):
        name = progress.stage.partition(",")[0]
        self._asked = self._coarse if name == self._stage else self._fine
