"""CSS without what it would load: a declaration that is dropped leaves its rule as it was."""

import pytest

from lensmith.data.webpages.markup.outside import css_without_outside


@pytest.mark.parametrize(
    ("css", "kept"),
    [
        ("a{color:red;background:url(http://x)}b{margin:0}", "a{color:red;}b{margin:0}"),
        ("a{background:url(http://x)}b{margin:0}", "a{}b{margin:0}"),
        ("@media print{a{background:url(http://x)}}b{margin:0}", "@media print{a{}}b{margin:0}"),
        ('a[href="url(http://x"]{color:red}b{margin:0}', "b{margin:0}"),
        ('@media x{a[href="url(http://x"]{color:red;margin:0}i{top:0}}b{margin:0}', "@media x{i{top:0}}b{margin:0}"),
        ("color:red;background:url(http://x)", "color:red;"),
        ("a{content:'}';color:red}", "a{content:'}';color:red}"),
    ],
)
def test_a_dropped_declaration_leaves_its_rule_closed(css, kept):
    assert css_without_outside(css) == kept
