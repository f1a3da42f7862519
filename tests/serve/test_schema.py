"""The server's OpenAPI schema beside the table of fields."""

import pytest

from lensmith.openai_api.fields import FIELDS, ServerFate
from lensmith.openai_api.types import Kind
from lensmith.serve import schema


@pytest.mark.parametrize(("kind", "body"), [(Kind.CHAT, schema.CHAT), (Kind.COMPLETION, schema.COMPLETION)])
def test_the_schema_names_every_field_that_the_server_reads_and_no_other(kind, body):
    read = {field.name for field in FIELDS.values() if field.server is ServerFate.READ and kind in field.kinds}
    assert set(body["properties"]) == read
