"""A screenshot measured and rebuilt as HTML, without a trained writer: text, surfaces, pictures, structure, page."""
