"""A screenshot measured and rebuilt as HTML, without a trained writer: text, surfaces, pictures, structure, page.

Read `measure` (what stands where, and the page of that) and `fit` (the page rendered and corrected). What stands where:
`ocr` (lines of text), `surfaces` with `shadows`, `pictures`, `typography` (the letters of a line), `inline` (words
within a line) and `blocks` (lines joined). The page: `tree` (what lies in what), `roles` with `tables` (what its parts
are for), `markup` (its HTML) and `css`.
"""
