"""Named, complete run configurations; a variant changes one field of its parent."""
