import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from lensmith.audit.findings.finding import Cost, FindingKind, ReadOut, Severity
from lensmith.audit.findings.wording import duration, money, public_target, ratio, visible
from lensmith.audit.probe.capabilities import Probed
from lensmith.audit.report import files as report_module
from lensmith.audit.report.files import as_dict, as_html, as_json, as_text, write_report
from lensmith.audit.report.html import CAPABILITIES
from lensmith.audit.report.plot import Mark, singular_plot
from lensmith.core.endpoint import Request
from tests.support.sample_report import HOSTILE, audit_report, clean_report, finding

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Strict(HTMLParser):
    """Tags that close in order, the attributes seen, and the text outside of style."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def test_four_files_are_written_and_say_the_same(tmp_path):
    files = write_report(audit_report(), tmp_path / "new" / "folder")
    names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert names == ["report.html", "report.json", "report.junit.xml", "report.sarif"]
    values = json.loads(files.json.read_text())
    assert values["verdict"] == "findings" and values["exit_code"] == 1 and values["threshold"] == "medium"
    assert "2 findings at or above medium" in Strict(files.html.read_text()).text
    assert 'failures="2"' in files.junit.read_text()
    assert json.loads(files.sarif.read_text())["runs"][0]["invocations"][0]["exitCode"] == 1


def test_the_same_audit_gives_the_same_bytes_in_any_order_of_findings(tmp_path):
    report = audit_report()
    shuffled = audit_report(findings=report.findings[::-1])
    for part in vars(write_report(report, tmp_path / "a")).values():
        other = tmp_path / "b" / part.name
        write_report(shuffled, tmp_path / "b")
        assert part.read_bytes() == other.read_bytes()


def test_json_has_what_the_report_has():
    values = json.loads(as_json(audit_report(capabilities={"b": 1, "a": (np.float32(0.5), np.nan, np.arange(2))})))
    assert values["schema_version"] == 1
    assert [one["severity"] for one in values["findings"]] == ["high", "medium", "low"]
    assert values["findings"][1]["whole"] == {
        "queries": 42_000_000,
        "tokens": 420_000_000,
        "seconds": 2e6,
        "usd": 420.0,
        "extrapolated": True,
    }
    assert values["findings"][2]["whole"] is None
    assert list(values["capabilities"].items()) == [("a", [0.5, None, [0, 1]]), ("b", 1)]
    assert values["width"] == 8 and len(values["singular_values"]) == 20


@pytest.mark.parametrize(
    ("report", "headline", "code"),
    [
        (audit_report(), "2 findings at or above medium", 1),
        (audit_report(threshold=Severity.HIGH), "1 finding at or above high", 1),
        (audit_report(threshold=Severity.CRITICAL), "Could not tell", 3),
        (clean_report(), "Clean: nothing at or above medium", 0),
    ],
)
def test_verdict_headline_and_exit_status_agree_everywhere(report, headline, code):
    assert as_text(report).startswith(headline)
    assert as_dict(report)["exit_code"] == code
    page = Strict(as_html(report)).text
    assert headline in page and f"Exit status{code} {report.verdict.value}" in page


def test_the_page_is_self_contained_and_well_formed():
    html = as_html(audit_report())
    page = Strict(html)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not {name for name, _ in page.attributes} & {"src", "href", "onload", "onclick", "style"}
    assert "http://" not in html.replace("http://127.0.0.1:8080/v1", "") and "url(" not in html
    assert "default-src 'none'" in html and "prefers-color-scheme:dark" in html


def test_every_finding_shows_its_figures_cure_and_retest():
    text = Strict(as_html(audit_report())).text
    for piece in ("Token 81 came back as -14.03.", "42 million queries", "$420", "extrapolated", "64 queries",
                  "Refuse logit_bias together with logprobs.", "lensmith audit URL --read-out P4a",
                  "the true logprob of a token forced by a bias", "below threshold", "not priced",
                  "Whether an allow-list is honoured.", "top logprobs", "echo", "refused"):  # fmt: skip
        assert piece in text, piece


def test_hostile_text_stays_text():
    report = audit_report(
        model=HOSTILE,
        target=f"http://host/{HOSTILE}",
        width_note=HOSTILE,
        started_at=HOSTILE,
        capabilities={HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE, {HOSTILE: None}]}},
        unresolved=(HOSTILE,),
        findings=(finding(title=HOSTILE, was_read=f"`{HOSTILE}` `", evidence={HOSTILE: HOSTILE}, cure=HOSTILE,
                          retest=HOSTILE),),
    )  # fmt: skip
    html = as_html(report)
    page = Strict(html)
    assert "script" not in page.tags
    shown = "<script>alert(1)</script>\"'&\\x1b[31m\\u202egnp.exe\\ud800]]>\\x00"
    assert page.text.count(shown) >= 13
    for text in (html, as_text(report)):
        text.encode()
        assert not set("\x1b\u202e\x00") & set(text)
    assert json.loads(as_json(report))["model"] == HOSTILE


def test_secrets_of_an_address_are_left_out():
    report = audit_report(target="https://me:hunter2@host:8000/v1?api_key=hunter2#hunter2")
    told = as_json(report) + as_html(report) + as_text(report) + report_module.as_junit(report)
    assert "hunter2" not in told + report_module.as_sarif(report) and "https://host:8000/v1" in told
    assert public_target("in process: fake") == "in process: fake"
    assert public_target("http://[broken") == "http://[broken"


def test_a_report_that_cannot_be_written_as_one_of_the_files_leaves_all_old_ones(tmp_path):
    write_report(clean_report(), tmp_path)
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    with pytest.raises(TypeError):
        write_report(audit_report(singular_values=("large", "small")), tmp_path)  # JSON holds them, no picture does
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before
    assert len(before) == 4


def test_the_plot_marks_every_gap_and_breaks_the_line_there():
    values = [10.0] * 8 + [1e-2] * 4 + [1e-5] * 4
    marks = [Mark(after=8, ratio=1000.0), Mark(after=12, ratio=1000.0)]
    svg = singular_plot(values, marks, 8)
    Strict(svg)
    assert svg.count("<polyline") == 3
    assert "width 8: 1,000 times smaller" in svg and ">12: 1,000 times smaller" in svg
    # A smaller value stands lower, and every point lies within the frame.
    points = [tuple(map(float, pair.split(","))) for pair in " ".join(re.findall(r'points="([^"]+)"', svg)).split()]
    assert len(points) == 16 and [y for _, y in points] == sorted(y for _, y in points)
    assert all(0 <= x <= 960 and 0 <= y <= 400 for x, y in points)


def test_the_report_marks_gaps_it_finds_itself_and_only_those():
    assert "width 8: " in as_html(audit_report())
    flat = audit_report(width=None, singular_values=tuple(0.9**place for place in range(60)))
    assert "No gap stands out" in as_html(flat) and "times smaller" not in as_html(flat)
    padded = [0.99**place for place in range(100)] + [1e-3 * 0.99**place for place in range(40)]
    padded += [1e-7 * 0.99**place for place in range(60)]
    html = as_html(audit_report(width=140, singular_values=tuple(padded)))
    assert "width 140: " in html and ">100: " in html and "padded after training" in html


def test_a_width_that_is_an_interval_or_open_is_not_shown_as_exact():
    page = Strict(as_html(audit_report(width=17, width_interval=(16, 17), width_note="by the norm's biases"))).text
    assert "Hidden width16 to 17" in page and "Width: 16 to 17 (by the norm's biases)." in page
    page = Strict(as_html(audit_report(width=None, width_note="lost in noise"))).text
    assert "Hidden widthunresolved  (lost in noise)" in page
    assert "width: 16 to 17" in as_text(audit_report(width=17, width_interval=(16, 17)))


def test_small_falls_among_the_first_values_are_no_second_width():
    values = [8.0, 4.0, 3.9, *(3.8 * 0.99**place for place in range(61))]
    values += [1e-6 * 0.99**place for place in range(40)]
    html = as_html(audit_report(width=64, singular_values=tuple(values)))
    assert "width 64: " in html and "padded" not in html


@pytest.mark.parametrize("values", [(), (1.0,), (0.0, 0.0, 0.0), (float("nan"), 1.0)])
def test_no_plot_where_there_is_nothing_to_plot(values):
    assert singular_plot(values, [], None) == ""
    assert "<svg" not in as_html(audit_report(singular_values=values, width=None))


def test_thousands_of_values_stay_a_small_picture():
    values = tuple(np.exp(-np.arange(8192) / 900).tolist())
    svg = singular_plot(values, [], None)
    assert len(svg) < 40_000 and f"{values[0]:.0f}"


def test_units_read_well():
    assert [duration(value) for value in (0, 0.02, 3.21, 95, 43_000, 9e5, 4e8)] == [
        "0.0 s", "20 ms", "3.2 s", "1.6 min", "12 h", "10 days", "13 years"]  # fmt: skip
    assert [money(value) for value in (0, 0.001, 16.591, 2000, 5e7)] == [
        "$0", "under 1 cent", "$16.59", "$2,000", "$50 million"]  # fmt: skip
    assert [ratio(value) for value in (1.52, 29.4, 44_120, 1e140, float("inf"))] == [
        "1.5", "29", "44,000", "1e140", "beyond measure"]  # fmt: skip
    assert visible("naïve 日本\n\u200bx") == "naïve 日本 \\u200bx"


def test_one_cure_and_one_command_to_test_again_stand_first():
    report = audit_report()
    for text in (Strict(as_html(report)).text, as_text(report)):
        cure = "lensmith guard --upstream http://127.0.0.1:8080/v1 --expose top-logprobs=5,no-logit-bias,no-metadata"
        assert 0 < text.index(cure) < text.index("Token 81 came back")
        assert text.count("lensmith audit URL --read-out P4a") == 1
    assert "lensmith guard" not in as_html(clean_report()) + as_text(clean_report())
    other = finding(retest="lensmith audit URL --read-out P3")
    assert as_text(audit_report(findings=(*report.findings, other))).count("retest: ") == 4


def test_equally_bad_findings_stand_worst_first():
    kinds = (FindingKind.IMAGE, FindingKind.LAYER, FindingKind.ROTATION, FindingKind.WIDTH, FindingKind.LEAK)
    bad = {
        FindingKind.LAYER: Severity.CRITICAL,
        FindingKind.ROTATION: Severity.CRITICAL,
        FindingKind.LEAK: Severity.MEDIUM,
    }
    findings = [finding(kind=kind, read_out=ReadOut.P1, severity=bad.get(kind, Severity.HIGH)) for kind in kinds]
    report = audit_report(findings=tuple(findings))
    told = [one["code"] for one in as_dict(report)["findings"]]
    assert told == ["ROTATION", "LAYER", "WIDTH", "IMAGE", "LEAK-P1"]


def test_the_price_of_the_layer_is_the_one_that_was_paid():
    paid = finding(kind=FindingKind.LAYER, severity=Severity.CRITICAL, whole=Cost(queries=63, seconds=1.0))
    cheaper = finding(kind=FindingKind.LEAK, read_out=ReadOut.P2, whole=Cost(queries=60, extrapolated=True))
    text = Strict(as_html(audit_report(findings=(paid, cheaper)))).text
    assert "The last layer took63 queries" in text
    text = Strict(
        as_html(audit_report(findings=(cheaper, finding(kind=FindingKind.WIDTH, whole=Cost(queries=5)))))
    ).text
    assert "The last layer would take60 queries" in text and "extrapolated" in text


def test_capabilities_and_figures_are_told_in_plain_words():
    capabilities = {"spread_nats": 0.0, "bias_steers": True, "taken": "before-bias", "decimals": None, "wanted_ids": 0}
    evidence = {"spread_nats": 2.25, "ratio": 535_321.7, "content_hash": "abc"}
    text = Strict(as_html(audit_report(capabilities=capabilities, findings=(finding(evidence=evidence),)))).text
    for field in ("spread nats", "bias steers", "before-bias", "wanted ids", "content hash", "e+05"):
        assert field not in text, field
    assert "Logprobs are takenbefore the bias" in text and "Times smaller behind the gap540,000" in text


def test_every_capability_has_a_name_in_words():
    assert set(Probed(context=Request(prompt="x")).as_json()) == set(CAPABILITIES)


def test_capabilities_keep_their_names_in_reports():
    """Dashboards read them: a field that is renamed in the code is not renamed there."""
    names = (
        "allow_list allow_list_true_value bias_steers bias_with_logprobs biased_ids decimals deterministic echo facts "
        "failed largest_bias notes read_outs sampled spread_nats step_nats taken takes_token_ids tells_ids "
        "top_logprobs vocabulary_size wanted_ids whole_vocabulary"
    )
    assert set(names.split()) <= set(Probed(context=Request(prompt="x")).as_json())


def test_the_plot_is_there_for_wide_and_narrow_screens_and_shows_the_gap_on_both():
    html = as_html(audit_report())
    for name, wide in (("wide", 960), ("narrow", 380)):
        svg = re.search(rf'<svg class="plot {name}".*?</svg>', html, re.S).group()
        assert f'viewBox="0 0 {wide} ' in svg and "width 8: " in svg
        assert all(0 <= float(x) <= wide for x in re.findall(r' x[12]?="([^"]+)"', svg))
    assert ".plot.narrow{display:none}" in html and not re.search('class="scroll"><svg', html)
